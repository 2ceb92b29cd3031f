"""Machines at the target: made on hold, started, stopped, waited for.

States are numbers that grow with each version, so none is taken for impossible: what isn't known is neither an end nor
a failure, and every wait is bounded.
"""

from collections.abc import Callable, Mapping
from threading import Event
from typing import Literal, NamedTuple

from snapferry.opennebula import parse
from snapferry.opennebula.attributes import Attributes, check_name, holds, render
from snapferry.opennebula.client import Client
from snapferry.opennebula.errors import MachineFailed, NoSuchObject, WrongState
from snapferry.opennebula.images import update
from snapferry.opennebula.models import Machine
from snapferry.opennebula.states import DONE, POWEROFF, RUNNING, State, has_failed, is_resting, state_name, state_of
from snapferry.opennebula.waiting import wait_until

STOP_SECONDS = 120.0
NIC_SECONDS = 120.0

Wanted = Literal["HOLD", "RUNNING", "POWEROFF", "DONE"]

_EVERYTHING = (-2, -1, -1, -1)  # …, and any state but DONE
_RECOVER_DELETE = 3


def list_machines(client: Client) -> list[Machine]:
    """All machines that the user may see and that are not DONE, with their USER_TEMPLATE."""
    return [parse.machine(one) for one in client.call("vmpool.infoextended", *_EVERYTHING).iterfind("VM")]


def read_machine(client: Client, machine_id: int) -> Machine:
    """One machine, fresh; right after an action it may still show the old state. Raises NoSuchObject."""
    return parse.machine(client.call("vm.info", machine_id, False))


def instantiate(client: Client, template_id: int, name: str, *, hold: bool, extra: Attributes) -> int:
    """Makes a machine from a template.

    Looks first: a machine of that template with that name and all of `extra` is the one that a killed run made.

    Args:
        client: the frontend.
        template_id: the template.
        name: the machine's.
        hold: True leaves it in HOLD until `release`.
        extra: attributes merged over the template's; those that OpenNebula has no use for land in USER_TEMPLATE.

    Returns:
        The machine's ID.

    Raises:
        WrongState: an image is disabled or in use.
        AddressTaken, NotAllowed, CallFailed: nothing was made.
    """
    text = render({name: value for name, value in extra.items() if value}) if extra else ""
    for machine in list_machines(client):
        same = machine.template_id == template_id and machine.name == name
        if same and holds(machine.attributes, extra) and not has_failed(state_of(machine)):
            return machine.id
    return int(client.call("template.instantiate", template_id, check_name(name), hold, text, False))


def release(client: Client, machine_id: int) -> None:
    """Lets a machine on hold be scheduled; one that isn't on hold any more is fine."""
    if state_of(read_machine(client, machine_id)) == State("HOLD"):
        client.call("vm.action", "release", machine_id)


def deploy(client: Client, machine_id: int, host_id: int, datastore_id: int = -1) -> None:
    """Starts a pending or held machine on a host, past the scheduler; administrators only.

    Args:
        client: the frontend.
        machine_id: the machine.
        host_id: where.
        datastore_id: the system datastore; -1 lets OpenNebula choose.
    """
    if state_of(read_machine(client, machine_id)).name in ("PENDING", "HOLD"):
        client.call("vm.deploy", machine_id, host_id, False, datastore_id)


def resume(client: Client, machine_id: int) -> None:
    """Starts a powered-off machine; one that runs already, or is on its way, is fine."""
    if is_resting(state_of(read_machine(client, machine_id))):
        client.call("vm.action", "resume", machine_id)


def poweroff_hard(
    client: Client, machine_id: int, timeout_seconds: float = STOP_SECONDS, stop: Event | None = None
) -> Machine:
    """Pulls the plug and waits for POWEROFF; off already is fine. Raises MachineFailed, WrongState."""
    if state_of(read_machine(client, machine_id)) != POWEROFF:
        client.call("vm.action", "poweroff-hard", machine_id)
    return wait_machine(client, machine_id, "POWEROFF", timeout_seconds, stop)


def terminate_hard(
    client: Client, machine_id: int, timeout_seconds: float = STOP_SECONDS, stop: Event | None = None
) -> None:
    """Ends the machine whatever its state and waits until it is DONE; gone already is fine.

    Where its driver failed and it can't be ended as others are, it is deleted by recover; that leaves persistent images
    in ERROR, from which `enable_image` brings them back.

    Raises:
        MachineFailed: it didn't end in time.
    """
    try:
        if state_of(read_machine(client, machine_id)) == DONE:
            return
        _terminate(client, machine_id)
        wait_machine(client, machine_id, "DONE", timeout_seconds, stop)
    except NoSuchObject:
        return


def _terminate(client: Client, machine_id: int) -> None:
    try:
        client.call("vm.action", "terminate-hard", machine_id)
    except WrongState:
        state = state_of(read_machine(client, machine_id))
        if state == DONE:
            return
        if not has_failed(state):
            raise
        client.call("vm.recover", machine_id, _RECOVER_DELETE)


def wait_machine(
    client: Client,
    machine_id: int,
    until: Wanted | Callable[[Machine], bool],
    timeout_seconds: float,
    stop: Event | None = None,
) -> Machine:
    """Waits for a state.

    Args:
        client: the frontend.
        machine_id: the machine.
        until: `HOLD`, `RUNNING`, `POWEROFF` or `DONE`, or a function that says so.
        timeout_seconds: how long.
        stop: ends the wait within a second.

    Returns:
        The machine as it was when it got there; a machine that is gone counts as DONE.

    Raises:
        MachineFailed: it failed, came to rest elsewhere, ended, or didn't get there in time; with the reason that
            OpenNebula gives.
        Stopped: `stop` was set.
    """
    watched = _Watched(client, machine_id, until)
    machine, over = wait_until(watched.read, watched.is_over, timeout_seconds, stop)
    if watched.reached(machine):
        return machine
    wanted = until if isinstance(until, str) else "the wanted state"
    how = "ended" if over else f"is after {timeout_seconds:g} s still"
    raise MachineFailed(
        f"VM {machine.name} ({machine.id}) should come to {wanted} and {how} in {state_name(machine)}."
        + (f" OpenNebula says: {reason}" if (reason := _reason(machine)) else ""),
        "See the VM's log in OpenNebula (/var/log/one/<id>.log on the frontend).",
    )


class _Watched:
    """One wait: remembers whether the machine has moved, since the first reads may show the state before the action."""

    def __init__(self, client: Client, machine_id: int, until: Wanted | Callable[[Machine], bool]) -> None:
        self._client = client
        self._machine_id = machine_id
        self._until = until
        self._moved = False
        self._last: Machine | None = None

    def read(self) -> Machine:
        try:
            self._last = read_machine(self._client, self._machine_id)
        except NoSuchObject:
            if self._until != "DONE":
                raise
            self._last = _gone(self._machine_id, self._last)
        return self._last

    def reached(self, machine: Machine) -> bool:
        if isinstance(self._until, str):
            return state_of(machine) == (RUNNING if self._until == "RUNNING" else State(self._until))
        return self._until(machine)

    def is_over(self, machine: Machine) -> bool:
        state = state_of(machine)
        if self.reached(machine) or state == DONE or (has_failed(state) and self._until != "DONE"):
            return True
        if is_resting(state):
            return self._moved and self._until != "DONE"
        self._moved = self._moved or state.name == "ACTIVE"
        return False


class _Nic(NamedTuple):
    """What a NIC's vector is known by."""

    network: str
    mac: str
    ip: str

    @classmethod
    def of(cls, vector: Mapping[str, str]) -> "_Nic":
        return cls(vector.get("NETWORK_ID", ""), vector.get("MAC", "").lower(), vector.get("IP", ""))

    def is_in(self, machine: Machine) -> bool:
        """Whether the machine has it; what the vector doesn't name may be anything."""
        theirs = [_Nic.of(one) for one in machine.nics]
        return any(all(not mine or mine == other for mine, other in zip(self, one, strict=True)) for one in theirs)


def attach_nic(client: Client, machine_id: int, nic: Mapping[str, str], stop: Event | None = None) -> Machine:
    """Attaches a NIC to a machine that runs or is powered off, and waits until it hangs there; there already is fine.

    Raises:
        AddressTaken: the network can't give the address.
        MachineFailed: it couldn't be attached.
    """
    wanted = _Nic.of(nic)
    if not wanted.is_in(read_machine(client, machine_id)):
        client.call("vm.attachnic", machine_id, render({"NIC": nic}))
    moved = Event()

    def is_over(machine: Machine) -> bool:
        if not _is_settled(machine):
            moved.set()
            return False
        return moved.is_set() or wanted.is_in(machine)

    machine, done = wait_until(lambda: read_machine(client, machine_id), is_over, NIC_SECONDS, stop)
    if not (done and wanted.is_in(machine)):
        raise MachineFailed(
            f"VM {machine.name} ({machine.id}) didn't get its NIC. {_reason(machine)}", "See the VM's log."
        )
    return machine


def detach_nic(client: Client, machine_id: int, nic_id: int, stop: Event | None = None) -> Machine:
    """Detaches a NIC by its NIC_ID and waits until it is gone; gone already is fine. Raises MachineFailed."""

    def has_it(machine: Machine) -> bool:
        return any(one.get("NIC_ID") == str(nic_id) for one in machine.nics)

    if has_it(read_machine(client, machine_id)):
        client.call("vm.detachnic", machine_id, nic_id)
    machine, done = wait_until(
        lambda: read_machine(client, machine_id), lambda one: _is_settled(one) and not has_it(one), NIC_SECONDS, stop
    )
    if not done:
        raise MachineFailed(
            f"NIC {nic_id} of VM {machine.name} ({machine.id}) wasn't detached. {_reason(machine)}", "See the VM's log."
        )
    return machine


def update_machine(client: Client, machine_id: int, attributes: Attributes) -> None:
    """Sets attributes of USER_TEMPLATE, each whole, and leaves the others; an empty one is removed."""
    update(client, "vm", machine_id, attributes)


def _is_settled(machine: Machine) -> bool:
    state = state_of(machine)
    return state in (RUNNING, DONE) or is_resting(state)


def _reason(machine: Machine) -> str:
    scheduler = machine.attributes.get("SCHED_MESSAGE", "")
    return machine.error or (scheduler if isinstance(scheduler, str) else "")


def _gone(machine_id: int, last: Machine | None) -> Machine:
    if last is not None:
        return last.model_copy(update={"state": 6, "lcm_state": 0})
    return Machine(
        id=machine_id, name="", state=6, lcm_state=0, template_id=None, error="", disks=(), nics=(), attributes={}
    )
