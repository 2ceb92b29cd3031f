"""NICs keep MAC and IP where that can be, and say plainly where it can't."""

from typing import Any

import pytest

from snapferry.opennebula import (
    AddressTaken,
    MacTaken,
    NotAllowed,
    UnmappedNetwork,
    create_template,
    ensure_address,
    instantiate,
    list_networks,
    map_network,
    missing_rights,
    nic_template,
    read_network,
    remove_addresses,
    terminate_hard,
)
from snapferry.opennebula.models import AddressRange, Lease, Network
from snapferry.plan import NetworkRule
from tests.opennebula.conftest import World, make_nic

MAC = "00:50:56:aa:bb:cc"
LAN: dict[str, Any] = {"NETWORK_ADDRESS": "10.0.5.0", "NETWORK_MASK": "255.255.255.0"}


def _network(number: int = 0, name: str = "lan", ranges: tuple[AddressRange, ...] = (), **attributes: Any) -> Network:
    return Network(id=number, name=name, attributes=attributes, ranges=ranges)


def _range(number: int, ip: str | None, mac: str, size: int, *leases: Lease, **attributes: str) -> AddressRange:
    return AddressRange(
        id=number, kind="IP4" if ip else "ETHER", first_ip=ip, first_mac=mac, size=size, leases=leases,
        attributes=attributes,
    )  # fmt: skip


def _rules(*pairs: tuple[str, str | int]) -> list[NetworkRule]:
    return [NetworkRule(source=source, target=target) for source, target in pairs]


# Which network


def test_the_first_rule_that_matches_decides_before_the_attribute() -> None:
    networks = [_network(0, "lan"), _network(1, "dmz"), _network(2, "other", VCENTER_NETWORK_MATCH="VM Network")]
    assert map_network(networks, _rules(("VM *", "dmz"), ("*", "lan")), "VM Network").id == 1
    assert map_network(networks, _rules(("x*", "dmz")), "VM Network").id == 2
    assert map_network(networks, _rules(("VM Network", 0)), "VM Network").id == 0
    assert map_network(networks, _rules(("VM Network", "0")), "VM Network").id == 0


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [("a*c", "abc", True), ("a.c", "abc", False), ("*", "", True), ("[a]", "[a]", True), ("a*", "ba", False)],
)
def test_only_a_star_stands_for_other_characters(pattern: str, name: str, fits: bool) -> None:
    networks = [_network(0, "lan")]
    if fits:
        assert map_network(networks, _rules((pattern, "lan")), name).id == 0
    else:
        with pytest.raises(UnmappedNetwork):
            map_network(networks, _rules((pattern, "lan")), name)


def test_an_unmapped_network_says_what_to_write_and_what_there_is() -> None:
    with pytest.raises(UnmappedNetwork, match=r"'DMZ 7'.*VCENTER_NETWORK_MATCH.*lan \(0\)"):
        map_network([_network(0, "lan")], [], "DMZ 7")
    with pytest.raises(UnmappedNetwork, match="'nowhere': there is no such network"):
        map_network([_network(0, "lan")], _rules(("*", "nowhere")), "VM Network")


def test_several_counterparts_are_refused_with_their_ids() -> None:
    match: dict[str, Any] = {"VCENTER_NETWORK_MATCH": "VM Network"}
    for networks in ([_network(3, "a", **match), _network(4, "b", **match)], [_network(3), _network(4)]):
        with pytest.raises(UnmappedNetwork, match=r"\(3\).*\(4\).*by its ID"):
            map_network(networks, _rules(("*", "lan")) if networks[0].name == "lan" else [], "VM Network")


# Which addresses


def test_mac_and_ip_outside_every_range_get_one_of_their_own() -> None:
    plan = nic_template(_network(**LAN), make_nic(MAC.upper(), "10.0.5.77"), True)
    assert (plan.range_kind, plan.ip, plan.hold, plan.warnings) == ("IP4", "10.0.5.77", False, ())
    assert plan.vector == {"NETWORK_ID": "0", "MAC": MAC, "MODEL": "virtio"}


def test_an_ip_inside_a_range_is_held_there() -> None:
    big = _range(0, "10.0.5.10", "02:00:0a:00:05:0a", 50)
    plan = nic_template(_network(ranges=(big,)), make_nic(MAC, "10.0.5.12"), True)
    assert (plan.range_kind, plan.hold) == ("IP4", True)
    held = _range(0, "10.0.5.10", "02:00:0a:00:05:0a", 50, Lease(ip="10.0.5.12", mac="02:00:0a:00:05:0c", vm=-1))
    assert nic_template(_network(ranges=(held,)), make_nic(MAC, "10.0.5.12"), True).hold is False


def test_a_pair_that_the_operator_made_is_used_as_it_is() -> None:
    pair = _range(1, "10.0.5.200", MAC, 1)
    plan = nic_template(_network(ranges=(pair,)), make_nic(MAC, "10.0.5.200"), True)
    assert plan.range_kind is None
    assert plan.vector == {"NETWORK_ID": "0", "IP": "10.0.5.200", "MODEL": "virtio"}


def test_a_mac_that_is_paired_with_another_ip_is_said() -> None:
    pair = _range(1, "10.0.5.200", MAC, 1)
    plan = nic_template(_network(ranges=(pair,)), make_nic(MAC, "10.0.5.7"), True)
    assert plan.ip == "10.0.5.200"
    assert "10.0.5.7 isn't kept" in plan.warnings[0]


def test_an_ip_of_another_machine_isnt_kept_and_the_clash_is_said() -> None:
    big = _range(0, "10.0.5.10", "02:00:0a:00:05:0a", 50, Lease(ip="10.0.5.12", mac="02:00:0a:00:05:0c", vm=7))
    plan = nic_template(_network(ranges=(big,)), make_nic(MAC, "10.0.5.12"), True)
    assert (plan.ip, plan.range_kind) == (None, "ETHER")
    assert "VM 7" in plan.warnings[0]
    assert "two machines will answer" in plan.warnings[0]


@pytest.mark.parametrize(("vm", "text"), [(7, "VM 7"), (-1, "held back")])
def test_a_mac_that_is_taken_is_refused(vm: int, text: str) -> None:
    taken = _range(0, "10.0.5.10", MAC, 1, Lease(ip="10.0.5.10", mac=MAC, vm=vm))
    with pytest.raises(MacTaken, match=text):
        nic_template(_network(ranges=(taken,)), make_nic(MAC, "10.0.5.10"), True)


@pytest.mark.parametrize(
    ("ips", "keep", "word"),
    [
        ((), True, "VMware Tools"),
        (("192.168.7.7",), True, "outside network lan"),
        (("169.254.3.4",), True, "VMware Tools"),
        (("fe80::1",), True, "VMware Tools"),
        (("2001:db8::5",), False, "2001:db8::5"),
        (("10.0.5.77",), False, ""),
        (("nonsense",), False, ""),
    ],
)
def test_a_guest_without_an_ip_to_keep_keeps_its_mac(ips: tuple[str, ...], keep: bool, word: str) -> None:
    plan = nic_template(_network(**LAN), make_nic(MAC, *ips), keep)
    assert (plan.ip, plan.range_kind, plan.vector["MAC"]) == (None, "ETHER", MAC)
    assert word in " ".join(plan.warnings)
    assert bool(plan.warnings) is bool(word)


def test_further_addresses_of_a_nic_are_said() -> None:
    plan = nic_template(_network(**LAN), make_nic(MAC, "10.0.5.77", "10.0.5.78", "2001:db8::5", "fe80::1"), True)
    assert plan.ip == "10.0.5.77"
    assert "10.0.5.78, 2001:db8::5 " in plan.warnings[0]


# At the frontend


def _lan(world: World) -> Network:
    return next(one for one in list_networks(world.client) if one.name == "lan")


def _boot(world: World, nic: dict[str, str], name: str = "web01") -> dict[str, str]:
    template = create_template(world.client, name, {"CPU": "1", "MEMORY": "64", "NIC": [nic]})
    machine = instantiate(world.client, template.id, name, hold=True, extra={})
    state = next(one for one in world.frontend.state()["machines"] if one["id"] == machine)
    return dict(state["nics"][0])


@pytest.mark.parametrize("ip", ["10.0.5.12", "10.0.5.200"])
def test_a_machine_gets_the_mac_and_the_ip_of_its_source(world: World, ip: str) -> None:
    network = map_network(list_networks(world.client), [], "VM Network")
    plan = nic_template(network, make_nic(MAC, ip), True)
    for _ in range(2):
        vector = ensure_address(world.client, plan, "m1")
    assert len(read_network(world.client, network.id).ranges) == 2
    nic = _boot(world, vector)
    assert (nic["IP"], nic["MAC"]) == (ip, MAC)
    assert ensure_address(world.client, plan, "m1") == vector


def test_a_machine_without_a_known_ip_gets_its_mac(world: World) -> None:
    plan = nic_template(_lan(world), make_nic(MAC), True)
    nic = _boot(world, ensure_address(world.client, plan, "m1"))
    assert nic["MAC"] == MAC
    assert not nic.get("IP")


def test_nobody_else_gets_a_kept_address(world: World) -> None:
    network = _lan(world)
    first = network.ranges[0].first_ip or ""
    ensure_address(world.client, nic_template(network, make_nic(MAC, first), True), "m1")
    other = _boot(world, {"NETWORK_ID": str(network.id)}, "other")
    assert other["IP"] != first


def test_what_was_added_is_removed_and_nothing_else(world: World) -> None:
    before = world.frontend.state()
    network = _lan(world)
    ensure_address(world.client, nic_template(network, make_nic(MAC, "10.0.5.12"), True), "m1")
    ensure_address(world.client, nic_template(network, make_nic("00:50:56:00:00:02", "10.0.5.201"), True), "m2")
    removed = remove_addresses(world.client, "m1")
    assert len(removed) == 1
    assert "10.0.5.12" in removed[0]
    assert [one.attributes.get("SNAPFERRY") for one in read_network(world.client, network.id).ranges] == [None, "m2"]
    assert remove_addresses(world.client, "m1") == []
    remove_addresses(world.client, "m2")
    assert world.frontend.state() == before


def test_an_address_that_the_operator_held_stays_held(world: World) -> None:
    network = _lan(world)
    world.client.call("vn.hold", network.id, "LEASES=[IP=10.0.5.12]")
    before = world.frontend.state()
    ensure_address(
        world.client, nic_template(read_network(world.client, network.id), make_nic(MAC, "10.0.5.12"), True), "m1"
    )
    remove_addresses(world.client, "m1")
    assert world.frontend.state() == before


@pytest.mark.parametrize("method", ["vn.add_ar", "vn.hold"])
def test_a_run_killed_in_between_is_finished_by_the_next(world: World, method: str) -> None:
    before = world.frontend.state()
    network = _lan(world)
    plan = nic_template(network, make_nic(MAC, "10.0.5.12"), True)
    world.frontend.set_fault("drop_answer" if method == "vn.add_ar" else "drop", method=method)
    with pytest.raises(Exception, match="reached"):
        ensure_address(world.client, plan, "m1")
    ensure_address(world.client, plan, "m1")
    ranges = read_network(world.client, network.id).ranges
    assert len(ranges) == 2
    assert [(lease.ip, lease.vm) for lease in ranges[0].leases] == [("10.0.5.12", -1)]
    remove_addresses(world.client, "m1")
    assert world.frontend.state() == before


def test_a_range_in_use_isnt_removed(world: World) -> None:
    plan = nic_template(_lan(world), make_nic(MAC, "10.0.5.12"), True)
    vector = ensure_address(world.client, plan, "m1")
    template = create_template(world.client, "web01", {"CPU": "1", "MEMORY": "64", "NIC": [vector]})
    machine = instantiate(world.client, template.id, "web01", hold=True, extra={})
    with pytest.raises(AddressTaken, match=f"VM {machine}"):
        remove_addresses(world.client, "m1")
    terminate_hard(world.client, machine)
    assert len(remove_addresses(world.client, "m1")) == 1


def test_a_second_machine_with_the_mac_is_refused(world: World) -> None:
    network = _lan(world)
    plan = nic_template(network, make_nic(MAC, "10.0.5.12"), True)
    _boot(world, ensure_address(world.client, plan, "m1"))
    with pytest.raises(MacTaken):
        ensure_address(world.client, plan, "m2")


def test_a_user_without_rights_is_told_which_are_missing(world: World) -> None:
    plain = world.plain_user()
    world.client.call("vn.chmod", 0, -1, -1, -1, -1, -1, -1, 1, -1, -1)
    assert missing_rights(world.client) == []
    assert any("MAC" in one for one in missing_rights(plain))
    plan = nic_template(read_network(plain, 0), make_nic(MAC, "10.0.5.12"), True)
    with pytest.raises(NotAllowed, match="ADMIN NET"):
        ensure_address(plain, plan, "m1")
