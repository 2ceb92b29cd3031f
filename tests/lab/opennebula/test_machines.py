"""The life of a VM, and where its disks are meanwhile."""

import os
import pwd
from pathlib import Path
from typing import Any

import pyone
import pytest

from snapferry.lab.config import LabOneDatastore, LabOpenNebula


def system_folder(site: Any, datastore: int, vm: int) -> Path:
    return Path(f"{site.folder}/datastores/{datastore}/{vm}")


def write(one: Any, image: int, data: bytes) -> Path:
    path = Path(one.image.info(image).SOURCE)
    with path.open("r+b") as file:
        file.write(data)
    return path


def test_a_vm_has_the_elements_of_a_real_one_in_their_order(site: Any, one: Any) -> None:
    one.vm.lock(site.machine(one), 3)
    assert site.elements("vm.info", 0) == [
        "ID", "UID", "GID", "UNAME", "GNAME", "NAME", "PERMISSIONS", "LAST_POLL", "STATE", "LCM_STATE", "PREV_STATE",
        "PREV_LCM_STATE", "RESCHED", "STIME", "ETIME", "DEPLOY_ID", "LOCK", "MONITORING", "SCHED_ACTIONS", "TEMPLATE",
        "USER_TEMPLATE", "HISTORY_RECORDS", "BACKUPS",
    ]  # fmt: skip


def test_a_released_vm_is_scheduled_by_itself_and_runs(site: Any, one: Any) -> None:
    number = site.machine(one, (site.image(one),))
    seen = set()
    one.vm.action("release", number)

    def look() -> bool:
        vm = one.vm.info(number)
        seen.add((vm.STATE, vm.LCM_STATE))
        return bool((vm.STATE, vm.LCM_STATE) == (3, 3))

    site.until(look)
    assert seen <= {(1, 0), (3, 0), (3, 1), (3, 2), (3, 3)}
    record = one.vm.info(number).HISTORY_RECORDS.HISTORY[0]
    assert (record.HOSTNAME, record.DS_ID, record.TM_MAD) == ("kvm1", site.SYSTEM, "local")
    assert [number] == one.host.info(0).VMS.ID


def test_a_vm_whose_requirements_nothing_meets_stays_pending(site: Any, one: Any) -> None:
    never = site.machine(one, more='SCHED_REQUIREMENTS="HYPERVISOR=lxc"\n', hold=False)
    chosen = site.machine(one, more='SCHED_REQUIREMENTS="NAME = kvm2"\n', hold=False)
    site.wait_vm(one, chosen, 3, 3)
    assert one.vm.info(chosen).HISTORY_RECORDS.HISTORY[0].HOSTNAME == "kvm2"
    assert (one.vm.info(never).STATE, one.vm.info(never).LCM_STATE) == (1, 0)


def test_local_copies_the_disk_at_prolog_and_back_at_the_end(site: Any, one: Any) -> None:
    image = site.image(one)
    source = write(one, image, b"before")
    number = site.running(one, (image,))
    disk = system_folder(site, site.SYSTEM, number) / "disk.0"
    assert disk.read_bytes()[:6] == b"before"
    assert not disk.is_symlink()
    write(one, image, b"lost!!")
    with disk.open("r+b") as file:
        file.write(b"after!")
    one.vm.action("terminate", number)
    site.wait_vm(one, number, 6)
    assert source.read_bytes()[:6] == b"after!"
    assert one.image.info(image).STATE == 1
    assert not disk.parent.exists()


def test_shared_links_a_persistent_disk_and_copies_another(site: Any, one: Any) -> None:
    kept, thrown = site.image(one, "kept", site.SHARED), site.image(one, "thrown", site.SHARED)
    one.image.persistent(thrown, False)
    number = site.running(one, (kept, thrown))
    folder = system_folder(site, site.SYSTEM_SHARED, number)
    assert (folder / "disk.0").readlink() == Path(one.image.info(kept).SOURCE)
    assert not (folder / "disk.1").is_symlink()
    with (folder / "disk.0").open("r+b") as file:
        file.write(b"to the image")
    with (folder / "disk.1").open("r+b") as file:
        file.write(b"to the copy")
    assert [one.image.info(it).STATE for it in (kept, thrown)] == [8, 2]
    one.vm.action("terminate-hard", number)
    site.wait_vm(one, number, 6)
    assert Path(one.image.info(kept).SOURCE).read_bytes()[:12] == b"to the image"
    assert Path(one.image.info(thrown).SOURCE).read_bytes()[:11] == bytes(11)


def test_a_shared_image_on_a_local_system_datastore_is_copied(site: Any, one: Any) -> None:
    number = site.running(one, (site.image(one, "d", site.SHARED),), datastore=site.SYSTEM)
    assert not (system_folder(site, site.SYSTEM, number) / "disk.0").is_symlink()


def test_a_local_image_can_not_run_on_a_shared_system_datastore(site: Any, one: Any) -> None:
    number = site.machine(one, (site.image(one),))
    with pytest.raises(pyone.OneActionException, match="does not support transfer mode: shared"):
        one.vm.deploy(number, 0, False, site.SYSTEM_SHARED)


def test_power_off_keeps_the_disks_where_they_are_and_resume_runs_no_prolog(site: Any, one: Any) -> None:
    number = site.running(one, (site.image(one),))
    one.vm.action("poweroff-hard", number)
    site.wait_vm(one, number, 8)
    disk = system_folder(site, site.SYSTEM, number) / "disk.0"
    inode = disk.stat().st_ino
    text = r'Error performing action "poweroff-hard": This action is not available for state POWEROFF$'
    with pytest.raises(pyone.OneActionException, match=text):
        one.vm.action("poweroff-hard", number)
    one.vm.action("resume", number)
    site.wait_vm(one, number, 3, 3)
    assert disk.stat().st_ino == inode
    assert [record.SEQ for record in one.vm.info(number).HISTORY_RECORDS.HISTORY] == [0, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("explode", 'Action "explode" is not supported'),
        ("resume", 'Error performing action "resume": This action is not available for state HOLD'),
        ("poweroff", 'Error performing action "poweroff": This action is not available for state HOLD'),
    ],
)
def test_what_a_state_does_not_allow_is_refused(site: Any, one: Any, name: str, text: str) -> None:
    number = site.machine(one)
    with pytest.raises(pyone.OneActionException) as raised:
        one.vm.action(name, number)
    assert str(raised.value) == f"[one.vm.action] {text}"


def test_a_vm_on_hold_ends_at_once_and_gives_everything_back(site: Any, one: Any) -> None:
    image = site.image(one)
    before = site.frontend.state()
    number = site.machine(one, (image,), "NIC=[NETWORK_ID=0]\n")
    one.vm.action("terminate-hard", number)
    assert one.vm.info(number).STATE == 6
    assert site.frontend.state() == before
    assert one.vmpool.info(-2, -1, -1, -1).VM == []
    assert [it.ID for it in one.vmpool.info(-2, -1, -1, -2).VM] == [number]
    with pytest.raises(pyone.OneActionException, match="not available for state DONE"):
        one.vm.action("terminate-hard", number)


def test_a_vm_waits_for_an_image_that_is_still_being_made(slow_site: Any) -> None:
    site, one = slow_site, slow_site.client()
    image = one.image.allocate("NAME=d\nTYPE=OS\nSIZE=4\nPERSISTENT=YES\n", site.LOCAL)
    number = site.machine(one, (image,))
    assert (one.vm.info(number).STATE, one.image.info(image).STATE) == (10, 10)
    vm = site.wait_vm(one, number, 2)
    assert vm.TEMPLATE["DISK"]["SOURCE"] == one.image.info(image).SOURCE
    assert one.image.info(image).STATE == 8


def test_a_failed_prolog_is_told_and_can_be_tried_again(site: Any, one: Any) -> None:
    image = site.image(one)
    number = site.machine(one, (image,))
    site.frontend.set_fault("prolog", message="no space left")
    one.vm.deploy(number, 0)
    vm = site.wait_vm(one, number, 3, 39)
    assert vm.USER_TEMPLATE["ERROR"].endswith("Error executing image transfer script: no space left")
    one.vm.recover(number, 2)
    assert "ERROR" not in site.wait_vm(one, number, 3, 3).USER_TEMPLATE


def test_a_missing_image_file_fails_the_prolog_and_a_deleted_vm_leaves_the_image_in_error(site: Any, one: Any) -> None:
    image = site.image(one)
    source = Path(one.image.info(image).SOURCE)
    source.rename(source.with_suffix(".away"))
    number = site.machine(one, (image,))
    one.vm.deploy(number, 0)
    site.wait_vm(one, number, 3, 39)
    source.with_suffix(".away").rename(source)
    one.vm.recover(number, 3)
    site.wait_vm(one, number, 6)
    assert one.image.info(image).STATE == 5
    one.image.enable(image, True)
    assert one.image.info(image).STATE == 1


def test_a_failed_boot_can_be_tried_again(site: Any, one: Any) -> None:
    number = site.machine(one, (site.image(one),))
    site.frontend.set_fault("boot")
    one.vm.deploy(number, 0)
    site.wait_vm(one, number, 3, 36)
    one.vm.recover(number, 2)
    site.wait_vm(one, number, 3, 3)
    with pytest.raises(pyone.OneActionException, match="not available for state RUNNING"):
        one.vm.recover(number, 2)


@pytest.mark.slow
def test_a_start_can_pass_through_a_state_that_no_client_knows(slow_site: Any) -> None:
    one = slow_site.client()
    number = slow_site.machine(one)
    slow_site.frontend.set_fault("unknown_state", lcm_state=71)
    one.vm.deploy(number, 0)
    slow_site.wait_vm(one, number, 3, 71)
    slow_site.wait_vm(one, number, 3, 3)


def test_nics_come_and_go_while_the_vm_is_off(site: Any, one: Any) -> None:
    number = site.running(one, (site.image(one),), 'CONTEXT=[NETWORK="YES"]\n')
    one.vm.action("poweroff-hard", number)
    site.wait_vm(one, number, 8)
    one.vm.attachnic(number, 'NIC=[NETWORK_ID=0,IP="10.0.5.14"]')
    vm = site.wait_vm(one, number, 8)
    assert (vm.TEMPLATE["NIC"]["IP"], vm.TEMPLATE["CONTEXT"]["ETH0_IP"]) == ("10.0.5.14", "10.0.5.14")
    with pytest.raises(pyone.OneActionException, match=r"Cannot get IP/MAC lease from virtual network 0."):
        one.vm.attachnic(number, 'NIC=[NETWORK_ID=0,IP="10.9.9.9"]')
    one.vm.detachnic(number, 0)
    vm = site.wait_vm(one, number, 8)
    assert "NIC" not in vm.TEMPLATE
    assert one.vn.info(0).USED_LEASES == 0
    one.vm.action("resume", number)
    site.wait_vm(one, number, 3, 3)
    one.vm.attachnic(number, "NIC=[NETWORK_ID=0]")
    assert site.wait_vm(one, number, 3, 3).TEMPLATE["NIC"]["NIC_ID"] == "0"


def test_a_disk_is_attached_and_detached(site: Any, one: Any) -> None:
    first, second = site.image(one, "a"), site.image(one, "b")
    number = site.running(one, (first,))
    one.vm.attach(number, f"DISK=[IMAGE_ID={second}]")
    site.wait_vm(one, number, 3, 3)
    path = system_folder(site, site.SYSTEM, number) / "disk.1"
    assert path.exists()
    one.vm.detach(number, 1)
    site.wait_vm(one, number, 3, 3)
    assert not path.exists()
    assert one.image.info(second).STATE == 1


def test_the_boot_order_changes_while_the_vm_is_off(site: Any, one: Any) -> None:
    number = site.running(one, (site.image(one),), 'OS=[ARCH="x86_64"]\n')
    one.vm.action("poweroff-hard", number)
    uuid = site.wait_vm(one, number, 8).TEMPLATE["OS"]["UUID"]
    one.vm.updateconf(number, 'OS=[ARCH="x86_64",BOOT="disk0"]\n', 1)
    vm = one.vm.info(number)
    assert (vm.TEMPLATE["DISK"]["ORDER"], vm.TEMPLATE["OS"]["UUID"]) == ("1", uuid)
    with pytest.raises(pyone.OneActionException, match="BOOT"):
        one.vm.updateconf(number, 'OS=[BOOT="disk7"]\n', 1)
    assert one.vm.info(number).TEMPLATE["OS"]["BOOT"] == "disk0"


def test_user_attributes_are_in_the_extended_pool_only(site: Any, one: Any) -> None:
    number = site.machine(one)
    one.vm.update(number, 'KEY="vc1/vm-42"\nSTATE_A=[P="cutover"]\n', 1)
    one.vm.rename(number, "other")
    extended = one.vmpool.infoextended(-2, -1, -1, -1).VM[0]
    assert (extended.NAME, extended.USER_TEMPLATE["STATE_A"]) == ("other", {"P": "cutover"})
    assert one.vmpool.info(-2, -1, -1, -1).VM[0].USER_TEMPLATE is None
    with pytest.raises(pyone.OneInternalException, match="JSON query search is not supported by the SQL backend"):
        one.vmpool.info(-2, -1, -1, -1, "USER_TEMPLATE.KEY=x")


def test_a_locked_vm_is_not_resumed(site: Any, one: Any) -> None:
    number = site.running(one)
    one.vm.action("poweroff-hard", number)
    site.wait_vm(one, number, 8)
    one.vm.lock(number, 1, True)
    text = r"VM is locked. \[0\].$"
    with pytest.raises(pyone.OneAuthorizationException, match=text):
        one.vm.action("resume", number)
    with pytest.raises(pyone.OneAuthorizationException, match=text):
        one.vm.update(number, "A=1", 1)
    one.vm.unlock(number)
    one.vm.action("resume", number)
    site.wait_vm(one, number, 3, 3)


def test_a_plain_user_may_not_deploy(site: Any) -> None:
    user = site.plain_user()
    number = site.machine(user)
    with pytest.raises(
        pyone.OneAuthorizationException, match=r"User \[1\] : Not authorized to perform ADMIN VM \[0\].$"
    ):
        user.vm.deploy(number, 0, False, -1)
    user.vm.action("release", number)
    site.wait_vm(user, number, 3, 3)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("vm", "virtual machine"), ("vn", "virtual network"), ("datastore", "datastore"), ("host", "host")],
)
def test_unknown_objects_are_named(one: Any, kind: str, name: str) -> None:
    with pytest.raises(pyone.OneNoExistsException, match=rf"^\[one.{kind}.info\] Error getting {name} \[999\].$"):
        getattr(one, kind).info(999)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_all_files_belong_to_the_configured_user(open_site: Any) -> None:
    config = LabOpenNebula(
        datastores=(LabOneDatastore(tm="local"),), owner="nobody", image_delay=(0, 0), step_delay=(0, 0)
    )
    site = open_site(config)
    one = site.client()
    site.running(one, (site.image(one),), 'CONTEXT=[NETWORK="YES"]\n')
    owner = pwd.getpwnam("nobody").pw_uid
    files = [site.folder, *site.folder.rglob("*")]
    assert len([path for path in files if path.is_file()]) == 3
    assert {path.lstat().st_uid for path in files} == {owner}


def test_a_guest_writes_to_its_disks_even_where_its_boot_fails(site: Any, one: Any) -> None:
    image = site.image(one, datastore=site.SHARED)
    path = Path(one.image.info(image).SOURCE)
    site.frontend.set_fault("guest_writes", bytes=200_000)
    site.frontend.set_fault("boot")
    number = site.machine(one, (image,))
    one.vm.deploy(number, 0, False, -1)
    site.wait_vm(one, number, 3, 36)
    assert any(path.read_bytes())
