"""Power: shut down as the plan says, and verified."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from snapferry.errors import Stopped
from snapferry.lab import Lab
from snapferry.plan import OnShutdownTimeout
from snapferry.vsphere import (
    MissingPrivilege,
    PowerState,
    Session,
    ShutdownRefused,
    ShutdownTimeout,
    SourceVm,
    power_events_since,
    power_off,
    power_on,
    power_state,
    reverts_since,
    server_time,
    shutdown_guest,
)

pytestmark = pytest.mark.slow
Find = Callable[[str], SourceVm]
OpenSession = Callable[..., Session]
ABORT, PULL = OnShutdownTimeout.ABORT, OnShutdownTimeout.POWER_OFF


def test_a_guest_is_shut_down_and_seen_off(lab: Lab, session: Session, find: Find) -> None:
    vm = find("shut")
    shutdown_guest(session, vm, 30, ABORT, Event())
    assert power_state(session, vm.moref) is PowerState.OFF
    assert lab.control.power("shut") == "poweredOff"
    shutdown_guest(session, vm, 30, ABORT, Event())


def test_a_guest_that_hangs_keeps_running_where_the_plan_says_abort(lab: Lab, session: Session, find: Find) -> None:
    vm = find("shut-hangs-abort")
    lab.control.set_fault("shutdown_hangs", vm=vm.name)
    with pytest.raises(ShutdownTimeout, match=r"within 0\.5 s; the VM still runs"):
        shutdown_guest(session, vm, 0.5, ABORT, Event())
    assert lab.control.power(vm.name) == "poweredOn"


def test_a_guest_that_hangs_is_powered_off_where_the_plan_says_so(lab: Lab, session: Session, find: Find) -> None:
    vm = find("shut-hangs-off")
    lab.control.set_fault("shutdown_hangs", vm=vm.name)
    shutdown_guest(session, vm, 0.5, PULL, Event())
    assert lab.control.power(vm.name) == "poweredOff"


def test_a_guest_without_tools_keeps_running_where_the_plan_says_abort(lab: Lab, session: Session, find: Find) -> None:
    vm = find("shut-no-tools-abort")
    with pytest.raises(ShutdownRefused, match="can't be asked to shut down") as caught:
        shutdown_guest(session, vm, 30, ABORT, Event())
    assert "power-off" in caught.value.next_step
    assert lab.control.power(vm.name) == "poweredOn"


def test_a_guest_without_tools_is_powered_off_where_the_plan_says_so(lab: Lab, session: Session, find: Find) -> None:
    vm = find("shut-no-tools-off")
    shutdown_guest(session, vm, 30, PULL, Event())
    assert lab.control.power(vm.name) == "poweredOff"


def test_waiting_for_a_guest_stops_when_told_to(lab: Lab, session: Session, find: Find) -> None:
    vm = find("shut-stopped")
    lab.control.set_fault("shutdown_hangs", vm=vm.name)
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        asked = lab.control.counters().calls.get("ShutdownGuest", 0)
        waiting = pool.submit(shutdown_guest, session, vm, 600, PULL, stop)
        while lab.control.counters().calls.get("ShutdownGuest", 0) == asked and not waiting.done():
            Event().wait(0.02)
        told = time.monotonic()
        stop.set()
        with pytest.raises(Stopped):
            waiting.result(10)
    assert time.monotonic() - told < 3
    assert lab.control.power(vm.name) == "poweredOn"


def test_a_task_that_is_in_the_way_of_the_shutdown_is_waited_for(lab: Lab, session: Session, find: Find) -> None:
    vm = find("shut-busy")
    lab.control.set_fault("method", method="ShutdownGuest", fault="TaskInProgress", message="Another task runs.")
    shutdown_guest(session, vm, 30, ABORT, Event())
    assert lab.control.power(vm.name) == "poweredOff"


def test_power_is_changed_once_however_often_it_is_asked_for(lab: Lab, session: Session, find: Find) -> None:
    vm = find("power")
    before = lab.control.counters().calls
    for act in (power_off, power_off, power_on, power_on):
        act(session, vm.moref)
    after = lab.control.counters().calls
    for method in ("PowerOffVM_Task", "PowerOnVM_Task"):
        assert after[method] - before.get(method, 0) == 1
    assert lab.control.power("power") == "poweredOn"


def test_somebody_who_powers_the_vm_off_first_is_no_error(lab: Lab, session: Session, find: Find) -> None:
    vm = find("power-race")
    lab.control.set_fault("method", method="PowerOffVM_Task", fault="InvalidPowerState")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(power_off, session, vm.moref)
        lab.control.power_off(vm.name)
        asking.result(30)
    assert power_state(session, vm.moref) is PowerState.OFF


def test_what_happened_to_the_power_since_a_moment_is_told_in_order(lab: Lab, session: Session, find: Find) -> None:
    vm = find("events")
    power_off(session, vm.moref)
    since = server_time(session)
    assert power_events_since(session, vm.moref, since) == []
    lab.control.power_on(vm.name)
    lab.control.power_off(vm.name)
    told = power_events_since(session, vm.moref, since)
    assert [name for name in told if name.startswith("VmPowered")] == ["VmPoweredOnEvent", "VmPoweredOffEvent"]
    assert power_events_since(session, find("showcase").moref, since) == []
    assert reverts_since(session, vm.moref, since) == []


def test_powering_off_without_the_privilege_names_it(lab: Lab, open_session: OpenSession, find: Find) -> None:
    vm = find("showcase")
    with pytest.raises(MissingPrivilege) as caught:
        power_off(open_session("reader@vsphere.local"), vm.moref)
    assert caught.value.privilege == "VirtualMachine.Interact.PowerOff"
    assert lab.control.power(vm.name) == "poweredOn"
