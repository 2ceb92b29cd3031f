"""The marks at the source, and the privileges that they and all else need."""

from collections.abc import Callable

import pytest

from snapferry.doctor import check_source
from snapferry.errors import Refused, SourceError
from snapferry.lab import Lab
from snapferry.vsphere import (
    REQUIRED_PRIVILEGES,
    Session,
    SourceVm,
    closed_routes,
    mark_migrated,
    missing_privileges,
    read_vm,
    rename,
    set_nics_start_connected,
)

pytestmark = pytest.mark.slow
Find = Callable[[str], SourceVm]
OpenSession = Callable[..., Session]


def reconfigured(lab: Lab) -> int:
    return lab.control.counters().calls.get("ReconfigVM_Task", 0)


def test_network_cards_are_kept_from_connecting_and_put_back(lab: Lab, session: Session, find: Find) -> None:
    vm = find("nics")
    first, second = (nic.key for nic in vm.nics)
    set_nics_start_connected(session, vm, {first: False, second: False})
    assert [nic.start_connected for nic in read_vm(session, vm.moref).nics] == [False, False]
    assert [nic.connected for nic in read_vm(session, vm.moref).nics] == [nic.connected for nic in vm.nics]
    before = reconfigured(lab)
    set_nics_start_connected(session, vm, {first: False, second: False})
    assert reconfigured(lab) == before
    set_nics_start_connected(session, vm, {first: True})
    assert [nic.start_connected for nic in read_vm(session, vm.moref).nics] == [True, False]


def test_a_network_card_that_isnt_there_is_an_error(session: Session, find: Find) -> None:
    with pytest.raises(SourceError, match="no network card 4711"):
        set_nics_start_connected(session, find("nics"), {4711: False})


def test_a_migrated_vm_is_renamed_and_noted_once(lab: Lab, session: Session, find: Find) -> None:
    vm = find("marked")
    before = reconfigured(lab)
    for _ in range(2):
        mark_migrated(session, vm, "marked 100% (migrated/gone)", "Moved to OpenNebula by Snapferry.")
    now = read_vm(session, vm.moref)
    assert now.name == "marked 100% (migrated/gone)"
    assert now.annotation == "Moved to OpenNebula by Snapferry."
    assert now.instance_uuid == vm.instance_uuid
    assert reconfigured(lab) == before + 2
    mark_migrated(session, vm, "marked", "Moved back.")
    assert read_vm(session, vm.moref).annotation == "Moved to OpenNebula by Snapferry.\nMoved back."


def test_a_name_that_is_taken_is_refused(session: Session, find: Find) -> None:
    vm = find("marked-clash")
    with pytest.raises(Refused, match="already exists") as caught:
        rename(session, vm, "nics")
    assert "another name" in caught.value.next_step
    assert read_vm(session, vm.moref).name == "marked-clash"


def test_the_administrator_lacks_nothing(session: Session, find: Find) -> None:
    assert missing_privileges(session, find("showcase")) == []


def test_the_privileges_that_a_user_lacks_are_named(open_session: OpenSession, find: Find) -> None:
    vm = find("showcase")
    nearly = open_session("nearly@vsphere.local")
    assert missing_privileges(nearly, vm) == ["VirtualMachine.State.CreateSnapshot"]
    reader = missing_privileges(open_session("reader@vsphere.local"), vm)
    assert reader == [name for name in REQUIRED_PRIVILEGES if not name.startswith("System.")]


def test_the_routes_that_a_user_cant_take_are_named_with_what_they_need(
    session: Session, open_session: OpenSession, find: Find
) -> None:
    vm = find("showcase")
    assert closed_routes(session, vm) == {}
    assert closed_routes(open_session("reader@vsphere.local"), vm) == {
        "datastore": ["Datastore.Browse", "Datastore.FileManagement"],
        "export": ["VApp.Export"],
    }
    told = [one.what for one in check_source(open_session("reader@vsphere.local"), vm.path) if "route" in one.what]
    assert len(told) == 2 and "VApp.Export" in told[1]


def test_privileges_are_told_for_the_login_that_replaced_an_expired_one(
    lab: Lab, open_session: OpenSession, find: Find
) -> None:
    vm = find("showcase")
    nearly = open_session("nearly@vsphere.local")
    nearly.keep_alive()
    lab.control.expire_sessions()
    assert missing_privileges(nearly, vm) == ["VirtualMachine.State.CreateSnapshot"]
