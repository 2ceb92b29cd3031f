"""Power: looked at first, changed once, and verified."""

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from snapferry.errors import SourceError
from snapferry.plan import OnShutdownTimeout
from snapferry.vsphere.errors import HistoryIncomplete, InventoryIncomplete, NotInTime, ShutdownRefused, ShutdownTimeout
from snapferry.vsphere.models import PowerState, SourceVm
from snapferry.vsphere.properties import read_object
from snapferry.vsphere.waits import Watched, run_task, wait_for, when_free

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

log = logging.getLogger(__name__)

POWER_SECONDS = 10 * 60
"""How long a power operation may take, and its state to be seen."""
POWER_PATH = "runtime.powerState"

POWER_EVENTS = (
    "VmPoweredOnEvent", "VmPoweredOffEvent", "VmSuspendedEvent", "VmResumingEvent", "VmStartingEvent",
    "VmStoppingEvent", "VmResettingEvent", "DrsVmPoweredOnEvent", "VmGuestShutdownEvent", "VmGuestRebootEvent",
    "VmMigratedEvent", "VmRelocatedEvent", "DrsVmMigratedEvent", "VmRestartedOnAlternateHostEvent",
    "VmRestartedByHAEvent", "VmFailoverFailed", "VmDasBeingResetEvent", "VmDasBeingResetWithScreenshotEvent",
    "VmDisconnectedEvent", "VmOrphanedEvent",
)  # fmt: skip
"""Events after which a VM may not be in the state, or on the host, that it was; without the prefix of an `EventEx`.

Most are classes of the vSphere API reference. It says of `VmRestartedOnAlternateHostEvent` that since 5.0 an `EventEx`
of the type `com.vmware.vc.ha.VmRestartedByHAEvent` comes in its place; a reset by VM monitoring comes as
`com.vmware.vc.ha.VmDasBeingResetEvent` or as the class. vCenter writes both `com.vmware.vc.ha` and `com.vmware.vc.HA`.
"""
QUERY_LIMIT = 1000
"""`QueryEvents` gives no more events than this."""
REVERT_TASKS = ("vm.Snapshot.revert", "VirtualMachine.revertToCurrentSnapshot")
"""`TaskInfo.descriptionId` of a revert: the managed object's internal name (`vim.` left out) and the method."""
REVERT_EVENT = "VmStateRevertedToSnapshot"
"""`com.vmware.vc.vm.VmStateRevertedToSnapshot`, posted beside the task, but not by every release."""


def power_state(session: "Session", vm_moref: str) -> PowerState:
    """The VM's power state now. Raises VmGone."""
    what = f"tell the power state of {vm_moref}"
    values = read_object(session, what, vim.VirtualMachine, vm_moref, (POWER_PATH,))
    if POWER_PATH not in values:
        raise InventoryIncomplete(f"vCenter doesn't {what}.", "See whether the user has System.Read on the VM.")
    return PowerState(str(values[POWER_PATH]))


def shutdown_guest(
    session: "Session", vm: SourceVm, timeout_seconds: float, on_timeout: OnShutdownTimeout, stop: Event
) -> None:
    """Shuts the guest down and waits until the VM is powered off; one that is off is done.

    Args:
        timeout_seconds: how long the guest may take.
        on_timeout: whether a guest that takes longer, or can't be asked (no VMware Tools), keeps running or is
            powered off.
        stop: ends the wait; the guest may still go down after it.

    Raises:
        ShutdownTimeout: it still runs, and the policy says abort.
        ShutdownRefused: it can't be asked, and the policy says abort.
        Stopped, MissingPrivilege, SourceError.
    """
    try:
        if not when_free(session, lambda: _ask_guest(session, vm), timeout_seconds):
            return
        _wait_for_power(session, vm.moref, PowerState.OFF, timeout_seconds, f"shut {vm.name} down", stop)
    except (ShutdownRefused, NotInTime) as error:
        if on_timeout is OnShutdownTimeout.POWER_OFF:
            log.warning("%s isn't shut down (%s); powering it off as the plan says", vm.name, error.cause)
            power_off(session, vm.moref)
        elif isinstance(error, NotInTime):
            raise ShutdownTimeout(
                f"The guest of {vm.name} didn't shut down within {timeout_seconds:g} s; the VM still runs.",
                "See in its console what holds it; give it more time, or let the plan say `power-off`.",
            ) from error
        else:
            raise


def power_off(session: "Session", vm_moref: str) -> None:
    """Pulls the plug, and verifies that the VM is powered off. Repeatable."""
    bound = session.bind(vim.VirtualMachine, vm_moref)
    _power(session, vm_moref, PowerState.OFF, bound.PowerOffVM_Task, f"power {vm_moref} off")


def power_on(session: "Session", vm_moref: str) -> None:
    """Powers the VM on, and verifies it. Repeatable."""
    bound = session.bind(vim.VirtualMachine, vm_moref)
    _power(session, vm_moref, PowerState.ON, bound.PowerOnVM_Task, f"power {vm_moref} on")


def power_events_since(session: "Session", vm_moref: str, when: datetime) -> list[str]:
    """Types of the VM's power, migration and HA events from `when` on (vCenter's time), oldest first."""
    events = _events(session, vm_moref, when)
    return [name for name in map(_event_name, events) if name in POWER_EVENTS]


def reverts_since(session: "Session", vm_moref: str, when: datetime) -> list[datetime]:
    """When the VM was reverted to a snapshot, from `when` on; after a revert no change id counts."""
    return [
        event.createdTime
        for event in _events(session, vm_moref, when)
        if _event_name(event) == REVERT_EVENT
        or (isinstance(event, vim.event.TaskEvent) and event.info and event.info.descriptionId in REVERT_TASKS)
    ]


def server_time(session: "Session") -> datetime:
    """vCenter's clock, with which its events are stamped."""
    return session.keep_alive()


def _ask_guest(session: "Session", vm: SourceVm) -> bool:
    """Asks the guest to shut down; False if the VM is off already."""
    bound = session.bind(vim.VirtualMachine, vm.moref)
    state = power_state(session, vm.moref)
    if state is PowerState.OFF:
        return False
    refused = f"The guest of {vm.name} can't be asked to shut down"
    if state is PowerState.SUSPENDED:
        raise ShutdownRefused(f"{refused}: the VM is suspended.", "Resume it, then try again.")

    def ask() -> bool:
        try:
            bound.ShutdownGuest()
        except vim.fault.InvalidPowerState:
            return power_state(session, vm.moref) is not PowerState.OFF
        except (vim.fault.ToolsUnavailable, vim.fault.InvalidState) as fault:
            raise ShutdownRefused(
                f"{refused}: {fault.msg or 'VMware Tools are not running'}",
                "Start VMware Tools, shut the guest down yourself, or let the plan say `power-off`.",
            ) from fault
        return True

    return session.call(f"shut {vm.name} down", ask)


def _power(session: "Session", vm_moref: str, wanted: PowerState, start: Callable[[], Any], what: str) -> None:
    if power_state(session, vm_moref) is not wanted:
        try:
            run_task(session, what, start, POWER_SECONDS)
        except SourceError as error:
            if not isinstance(error.__cause__, vim.fault.InvalidPowerState):
                raise
            log.info("%s: somebody was quicker", what)
    _wait_for_power(session, vm_moref, wanted, POWER_SECONDS, what)


def _wait_for_power(
    session: "Session", vm_moref: str, wanted: PowerState, timeout_seconds: float, what: str, stop: Event | None = None
) -> None:
    watched = Watched(vim.VirtualMachine, vm_moref, [POWER_PATH])
    wait_for(session, watched, lambda seen: seen.get(POWER_PATH) == wanted, timeout_seconds, what, stop)


def _events(session: "Session", vm_moref: str, when: datetime) -> list[Any]:
    """The VM's events from `when` on, oldest first.

    They aren't filtered by type at the server: a filter that it reads otherwise than meant would hide them all.
    """
    spec = vim.event.EventFilterSpec
    filtered = spec(
        entity=spec.ByEntity(entity=session.bind(vim.VirtualMachine, vm_moref), recursion=spec.RecursionOption.self),
        time=spec.ByTime(beginTime=when),
    )
    manager = session.content.eventManager
    what = f"list the events of {vm_moref}"
    events = session.call(what, lambda: manager.QueryEvents(filtered), repeatable=True) or ()
    if len(events) >= QUERY_LIMIT:
        raise HistoryIncomplete(
            f"vCenter has {len(events)} or more events of {vm_moref} since {when:%Y-%m-%d %H:%M}; it cut the rest off.",
            "What happened meanwhile isn't known.",
        )
    return sorted((one for one in events if one.createdTime >= when), key=lambda one: one.key)


def _event_name(event: Any) -> str:
    if isinstance(event, vim.event.EventEx):
        return str(event.eventTypeId).rpartition(".")[2]
    return type(event).__name__.rpartition(".")[2]
