"""States of a machine by name; the tables are OpenNebula 7.4's, and a number outside them is nothing special."""

from typing import NamedTuple

from snapferry.opennebula.models import Machine

_STATES = (
    "INIT", "PENDING", "HOLD", "ACTIVE", "STOPPED", "SUSPENDED", "DONE", "FAILED", "POWEROFF", "UNDEPLOYED",
    "CLONING", "CLONING_FAILURE",
)  # fmt: skip

_LCM_STATES = {
    0: "LCM_INIT", 1: "PROLOG", 2: "BOOT", 3: "RUNNING", 4: "MIGRATE", 5: "SAVE_STOP", 6: "SAVE_SUSPEND",
    7: "SAVE_MIGRATE", 8: "PROLOG_MIGRATE", 9: "PROLOG_RESUME", 10: "EPILOG_STOP", 11: "EPILOG", 12: "SHUTDOWN",
    13: "CANCEL", 14: "FAILURE", 15: "CLEANUP_RESUBMIT", 16: "UNKNOWN", 17: "HOTPLUG", 18: "SHUTDOWN_POWEROFF",
    19: "BOOT_UNKNOWN", 20: "BOOT_POWEROFF", 21: "BOOT_SUSPENDED", 22: "BOOT_STOPPED", 23: "CLEANUP_DELETE",
    24: "HOTPLUG_SNAPSHOT", 25: "HOTPLUG_NIC", 26: "HOTPLUG_SAVEAS", 29: "SHUTDOWN_UNDEPLOY", 30: "EPILOG_UNDEPLOY",
    31: "PROLOG_UNDEPLOY", 32: "BOOT_UNDEPLOY", 33: "HOTPLUG_PROLOG_POWEROFF", 34: "HOTPLUG_EPILOG_POWEROFF",
    35: "BOOT_MIGRATE", 36: "BOOT_FAILURE", 37: "BOOT_MIGRATE_FAILURE", 38: "PROLOG_MIGRATE_FAILURE",
    39: "PROLOG_FAILURE", 40: "EPILOG_FAILURE", 41: "EPILOG_STOP_FAILURE", 42: "EPILOG_UNDEPLOY_FAILURE",
    44: "PROLOG_MIGRATE_POWEROFF_FAILURE", 46: "PROLOG_MIGRATE_SUSPEND_FAILURE", 47: "BOOT_UNDEPLOY_FAILURE",
    48: "BOOT_STOPPED_FAILURE", 49: "PROLOG_RESUME_FAILURE", 50: "PROLOG_UNDEPLOY_FAILURE",
    61: "PROLOG_MIGRATE_UNKNOWN_FAILURE", 65: "HOTPLUG_NIC_POWEROFF", 69: "BACKUP", 70: "BACKUP_POWEROFF",
}  # fmt: skip


class State(NamedTuple):
    """STATE and, while it is ACTIVE, LCM_STATE by name."""

    name: str
    active: str = ""


RUNNING = State("ACTIVE", "RUNNING")
POWEROFF = State("POWEROFF")
DONE = State("DONE")


def state_of(machine: Machine) -> State:
    """The machine's state; numbers without a name keep their number."""
    number = machine.state
    name = _STATES[number] if 0 <= number < len(_STATES) else f"STATE_{number}"
    if name != "ACTIVE":
        return State(name)
    return State(name, _LCM_STATES.get(machine.lcm_state, f"LCM_{machine.lcm_state}"))


def state_name(machine: Machine) -> str:
    """The state as OpenNebula's users know it: `RUNNING`, `PROLOG_FAILURE`, `POWEROFF`."""
    state = state_of(machine)
    return state.active or state.name


def has_failed(state: State) -> bool:
    """Whether it needs somebody to go on."""
    return state.name in ("FAILED", "CLONING_FAILURE") or state.active.endswith("FAILURE")


def has_run(machine: Machine) -> bool:
    """Whether its guest runs or has run, so that its disks may hold what nobody else has."""
    state = state_of(machine)
    if state.name == "ACTIVE":
        return not (state.active in _BEFORE_RUNNING or state.active.startswith("EPILOG"))
    return state.name in ("STOPPED", "SUSPENDED", "POWEROFF", "UNDEPLOYED")


_BEFORE_RUNNING = frozenset(
    ("LCM_INIT", "PROLOG", "BOOT", "FAILURE", "PROLOG_FAILURE", "BOOT_FAILURE", "CLEANUP_RESUBMIT", "CLEANUP_DELETE")
)


def is_resting(state: State) -> bool:
    """Whether it stays as it is until it is told to resume."""
    return state.name in ("POWEROFF", "SUSPENDED", "STOPPED", "UNDEPLOYED")
