"""Networks: ranges, leases, and how a NIC gets the address that it names."""

from typing import Any

import pyone
import pytest

LEASE = r"^\[one.vm.allocate\] Cannot get IP/MAC lease from virtual network {}.$"


def nic(one: Any, text: str) -> Any:
    """The NIC of a new VM on hold."""
    number = one.vm.allocate(f"NAME=n\nCPU=1\nMEMORY=64\nNIC=[{text}]\n", True)
    return one.vm.info(number).TEMPLATE["NIC"]


def test_a_network_has_the_elements_of_a_real_one_in_their_order(site: Any) -> None:
    assert site.elements("vn.info", 0) == [
        "ID", "UID", "GID", "UNAME", "GNAME", "NAME", "PERMISSIONS", "CLUSTERS", "BRIDGE", "BRIDGE_TYPE", "STATE",
        "PREV_STATE", "PARENT_NETWORK_ID", "TEMPLATE_ID", "VN_MAD", "PHYDEV", "VLAN_ID", "OUTER_VLAN_ID",
        "VLAN_ID_AUTOMATIC", "OUTER_VLAN_ID_AUTOMATIC", "USED_LEASES", "VROUTERS", "UPDATED_VMS", "OUTDATED_VMS",
        "UPDATING_VMS", "ERROR_VMS", "TEMPLATE", "AR_POOL",
    ]  # fmt: skip


def test_the_lab_network_says_what_it_replaces_and_derives_its_macs(one: Any) -> None:
    network = one.vn.info(0)
    assert network.TEMPLATE["VCENTER_NETWORK_MATCH"] == "VM Network"
    first = network.AR_POOL.AR[0]
    assert (first.IP, first.IP_END, first.MAC, first.MAC_END) == (
        "10.0.5.10", "10.0.5.29", "02:00:0a:00:05:0a", "02:00:0a:00:05:1d",
    )  # fmt: skip


def test_naming_the_ip_gives_its_mac_and_naming_the_mac_gives_its_ip(one: Any) -> None:
    one.vn.add_ar(0, 'AR=[TYPE=IP4,IP=10.0.5.77,MAC="00:50:56:aa:bb:cc",SIZE=2,SNAPFERRY="vm-42"]')
    by_ip = nic(one, 'NETWORK_ID=0,IP="10.0.5.77"')
    by_mac = nic(one, 'NETWORK="lan",MAC="00:50:56:aa:bb:cd"')
    assert (by_ip["MAC"], by_mac["IP"]) == ("00:50:56:aa:bb:cc", "10.0.5.78")
    made = one.vn.info(0).AR_POOL.AR[1]
    assert [(lease.IP, lease.MAC, lease.VM) for lease in made.LEASES.LEASE] == [
        ("10.0.5.77", "00:50:56:aa:bb:cc", 0), ("10.0.5.78", "00:50:56:aa:bb:cd", 1),
    ]  # fmt: skip
    assert one.vn.info(0).UPDATED_VMS.ID == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        'IP="10.0.5.12",MAC="02:00:0a:00:05:0c"',
        'IP="10.9.9.9"',
        'MAC="00:50:56:00:00:99"',
        'MAC="zz"',
        'IP="10.0.5.11"',
    ],
    ids=["both", "ip outside", "mac outside", "no mac", "in use"],
)  # fmt: skip
def test_every_lease_that_can_not_be_had_fails_with_one_text_and_takes_nothing(site: Any, one: Any, text: str) -> None:
    one.vn.hold(0, "LEASES=[IP=10.0.5.11]")
    before = site.frontend.state()
    with pytest.raises(pyone.OneInternalException, match=LEASE.format(0)):
        nic(one, f"NETWORK_ID=0,{text}")
    assert site.frontend.state() == before


def test_a_range_without_ips_gives_no_ip(site: Any, one: Any) -> None:
    number = one.vn.allocate("NAME=eth\nVN_MAD=bridge\nBRIDGE=br1\nAR=[TYPE=ETHER,SIZE=10]\n", -1)
    site.until(lambda: one.vn.info(number).STATE == 1)
    with pytest.raises(pyone.OneInternalException, match=LEASE.format(number)):
        nic(one, f'NETWORK_ID={number},IP="10.0.5.12"')
    assert "IP" not in nic(one, f"NETWORK_ID={number}")


def test_a_missing_network_is_named_as_a_real_frontend_does(one: Any) -> None:
    text = "User 0 does not own a network with name: nope . Set NETWORK_UNAME or NETWORK_UID of owner in NIC."
    with pytest.raises(pyone.OneInternalException, match=text):
        nic(one, 'NETWORK="nope"')
    with pytest.raises(pyone.OneInternalException, match="Virtual network with ID: 999 does not exist"):
        nic(one, "NETWORK_ID=999")


@pytest.mark.parametrize(
    ("text", "message"),
    [("IP=10.0.5.999,SIZE=1", "Wrong or empty IP attribute"), ("IP=10.0.5.90", "Wrong SIZE for address range")],
)
def test_a_bad_range_is_refused(one: Any, text: str, message: str) -> None:
    with pytest.raises(pyone.OneInternalException, match=message):
        one.vn.add_ar(0, f"AR=[TYPE=IP4,{text}]")


def test_ranges_may_overlap_and_go_only_when_nobody_uses_them(site: Any, one: Any) -> None:
    before = site.frontend.state()
    one.vn.add_ar(0, "AR=[TYPE=IP4,IP=10.0.5.12,SIZE=1]")
    one.vn.add_ar(0, "AR=[TYPE=IP4,IP=10.0.6.12,SIZE=1]")
    number = one.vm.allocate('NAME=n\nCPU=1\nMEMORY=64\nNIC=[NETWORK_ID=0,IP="10.0.6.12"]\n', True)
    one.vn.rm_ar(0, 1)
    with pytest.raises(pyone.OneInternalException, match="leases"):
        one.vn.rm_ar(0, 2)
    one.vm.action("terminate-hard", number)
    one.vn.rm_ar(0, 2)
    assert site.frontend.state() == before


def test_a_held_address_is_given_to_nobody(one: Any) -> None:
    one.vn.hold(0, "LEASES=[IP=10.0.5.10]")
    text = "Address is not part of the address range or in use."
    for address in ("10.0.5.10", "10.9.9.9"):
        with pytest.raises(pyone.OneInternalException, match=text):
            one.vn.hold(0, f"LEASES=[IP={address}]")
    assert nic(one, "NETWORK_ID=0")["IP"] == "10.0.5.11"
    one.vn.release(0, "LEASES=[IP=10.0.5.10]")
    assert nic(one, "NETWORK_ID=0")["IP"] == "10.0.5.10"


def test_the_pool_packs_the_leases_of_a_range(one: Any) -> None:
    nic(one, "NETWORK_ID=0")
    network = one.vnpool.info(-2, -1, -1).VNET[0]
    assert (network.AR_POOL.AR[0].ALLOCATED, network.USED_LEASES) == (" 0 68719476736", 1)


def test_a_plain_user_adds_no_range_and_names_no_mac(site: Any, one: Any) -> None:
    user = site.plain_user()
    one.vn.chmod(0, -1, -1, -1, -1, -1, -1, 1, -1, -1)
    with pytest.raises(
        pyone.OneAuthorizationException, match=r"User \[1\] : Not authorized to perform ADMIN NET \[0\]."
    ):
        user.vn.add_ar(0, "AR=[TYPE=IP4,IP=10.0.5.101,SIZE=1]")
    with pytest.raises(pyone.OneAuthorizationException, match=r"VM Template includes a restricted attribute MAC.$"):
        nic(user, 'NETWORK_ID=0,MAC="02:00:0a:00:05:0c"')
    assert nic(user, 'NETWORK_ID=0,NETWORK_UID=0,IP="10.0.5.12"')["MAC"] == "02:00:0a:00:05:0c"
