"""Sessions: opened, renewed and closed; what may be sent twice, and what never is."""

import hashlib
import ssl
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from snapferry.lab import Lab
from snapferry.vsphere import (
    MissingPrivilege,
    Session,
    SnapshotExists,
    SourceVm,
    Unreachable,
    VCenterLogin,
    WrongPassword,
    create_snapshot,
    list_vms,
    nfc_ticket,
    read_vm,
    remove_snapshot,
    server_time,
)

pytestmark = pytest.mark.slow
OpenSession = Callable[..., Session]
Find = Callable[[str], SourceVm]
THREADS = 12
CANARY = "canary-8f2a1c"


def calls(lab: Lab, method: str) -> int:
    return lab.control.counters().calls.get(method, 0)


def test_a_session_with_the_ca_knows_its_vcenter(session: Session) -> None:
    assert session.version == "8.0.3"
    assert session.about.apiType == "VirtualCenter"
    assert len(session.vcenter_uuid) == 36


def test_a_session_with_the_pinned_certificate_needs_no_ca(
    lab: Lab, open_session: OpenSession, session: Session
) -> None:
    ends = lab.endpoints
    pem = ssl.get_server_certificate((ends.vcenter_host, ends.vcenter_port), timeout=10)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert open_session(ca_pem=None, certificate_sha256=pin).vcenter_uuid == session.vcenter_uuid


def test_a_wrong_password_is_named_and_not_shown(open_session: OpenSession) -> None:
    with pytest.raises(WrongPassword) as caught:
        _ = open_session(password=SecretStr(CANARY)).about
    text = "".join(traceback.format_exception(caught.value))
    assert CANARY not in text
    assert caught.value.next_step


def test_a_session_isnt_opened_before_it_is_used_and_is_closed_behind(lab: Lab, login: VCenterLogin) -> None:
    before = lab.control.counters().sessions
    one = Session(login)
    assert lab.control.counters().sessions == before
    one.keep_alive()
    assert lab.control.counters().sessions == before + 1
    one.close()
    one.close()
    assert lab.control.counters().sessions == before


def test_an_expired_session_is_renewed_without_anybody_noticing(lab: Lab, open_session: OpenSession) -> None:
    one = open_session()
    first = server_time(one)
    key, logins = one.key, calls(lab, "Login")
    lab.control.expire_sessions()
    assert server_time(one) >= first
    assert one.key != key
    assert calls(lab, "Login") == logins + 1


def test_many_threads_that_meet_an_expired_session_log_in_once_and_each_get_their_ticket(
    lab: Lab, open_session: OpenSession, find: Find
) -> None:
    vm = find("ticket")
    one = open_session()
    one.keep_alive()
    lab.control.expire_sessions()
    logins = calls(lab, "Login")
    together = threading.Barrier(THREADS)

    def read() -> str:
        together.wait(10)
        return nfc_ticket(one, vm.moref, vm.disks[0].key).session_id

    with ThreadPoolExecutor(THREADS) as pool:
        tickets = [pool.submit(read) for _ in range(THREADS)]
        assert len({ticket.result(30) for ticket in tickets}) == THREADS
    assert calls(lab, "Login") == logins + 1


def test_a_session_that_expires_between_two_pages_of_a_read_loses_no_vm(lab: Lab, session: Session) -> None:
    whole = {vm.path for vm in list_vms(session)}
    lab.control.set_fault("method", method="ContinueRetrievePropertiesEx", fault="NotAuthenticated")
    assert {vm.path for vm in list_vms(session)} == whole


def test_a_session_that_expires_while_a_task_runs_still_gets_its_result(lab: Lab, session: Session, find: Find) -> None:
    vm = find("snap-expired")
    lab.control.set_fault("slow_task", method="CreateSnapshot_Task", vm=vm.name, seconds=3)
    asked = calls(lab, "WaitForUpdatesEx")
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(create_snapshot, session, vm, "snapferry-expired-r1", "")
        _until(lambda: calls(lab, "WaitForUpdatesEx") >= asked + 2)  # the first one is answered at once
        assert lab.control.expire_sessions() > 0
        snapshot = made.result(30)
    assert [one.moref for one in read_vm(session, vm.moref).snapshots] == [snapshot.moref]
    remove_snapshot(session, vm, snapshot.moref)


def test_a_read_whose_connection_breaks_is_asked_again(lab: Lab, session: Session, find: Find) -> None:
    vm = find("ticket")
    lab.control.set_fault("drop", method="RetrievePropertiesEx", when="before", times=2)
    assert read_vm(session, vm.moref).moref == vm.moref


def test_a_snapshot_whose_answer_was_lost_isnt_made_twice(lab: Lab, session: Session, find: Find) -> None:
    vm, name = find("snap-lost"), "snapferry-lost-r1"
    lab.control.set_fault("drop", method="CreateSnapshot_Task", when="after")
    started = calls(lab, "CreateSnapshot_Task")
    with pytest.raises(Unreachable):
        create_snapshot(session, vm, name, "")
    assert calls(lab, "CreateSnapshot_Task") == started + 1
    with pytest.raises(SnapshotExists) as caught:
        create_snapshot(session, vm, name, "")
    there = read_vm(session, vm.moref).snapshots
    assert [one.moref for one in there] == [caught.value.moref]
    remove_snapshot(session, vm, caught.value.moref)


def test_a_missing_privilege_is_named_and_nothing_is_left(lab: Lab, open_session: OpenSession, find: Find) -> None:
    vm = find("unprivileged")
    reader = open_session("reader@vsphere.local")
    before = lab.control.inventory().vms[vm.name]
    with pytest.raises(MissingPrivilege) as caught:
        create_snapshot(reader, vm, "snapferry-a-r1", "")
    assert caught.value.privilege == "VirtualMachine.State.CreateSnapshot"
    assert caught.value.entity == f"unprivileged ({vm.moref})"
    assert lab.control.inventory().vms[vm.name] == before


def _until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Waits for what another thread brings about."""
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it didn't come about in time")
