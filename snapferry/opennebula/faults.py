"""From OpenNebula's error codes and messages to named errors.

Codes alone don't tell: a taken name has code 0x4000 for images and 0x2000 for templates, a taken lock has 0x800 as a
wrong state has (observed on 7.4.0).
"""

import re
from collections.abc import Callable

from snapferry.errors import SnapferryError
from snapferry.opennebula.errors import (
    AddressTaken,
    BadName,
    CallFailed,
    Locked,
    NameTaken,
    NoSpace,
    NoSuchObject,
    NotAllowed,
    WrongPassword,
    WrongState,
)

AUTHENTICATION = 0x100
AUTHORIZATION = 0x200
NO_EXISTS = 0x400
ACTION = 0x800
LOCKED = 0x8000

_PREFIX = re.compile(r"^\[[\w.]+\]\s*")
_LOCK_TIME = re.compile(r"\d+")
_TAKEN = re.compile(r"NAME is already taken by \w+ (\d+)|collides with \w+ (\d+)")
_WRONG_STATE = re.compile(r"in state|for state|VMs using it|wrong state", re.IGNORECASE)
_LEASE = re.compile(r"Cannot get IP/MAC lease|Address is not part of the address range")


def named_error(method: str, code: int, message: str) -> SnapferryError:
    """The error that stands for a frontend's answer.

    Args:
        method: without `one.`, such as `image.info`.
        code: third value of the answer.
        message: second value of the answer.
    """
    text = _PREFIX.sub("", message).strip().rstrip(".")
    cause = f"OpenNebula refused {method}: {text}."
    if code == AUTHENTICATION:
        step = "Check user and password, or make a new token (`oneuser token-create`): tokens expire."
        return WrongPassword(f"OpenNebula doesn't know this user and password ({method}).", step)
    if code == NO_EXISTS:
        return NoSuchObject(cause, "Check the name or ID; somebody may have deleted it.")
    return _by_message(method, code, text, cause)


def _by_message(method: str, code: int, text: str, cause: str) -> SnapferryError:
    if method.endswith(".lock") and _LOCK_TIME.fullmatch(text):
        return Locked("The object is locked already.", "Wait until its holder lets go.", time=int(text))
    if code == LOCKED or " is locked" in text:
        return Locked(cause, "Wait until its holder lets go, or unlock it if nobody works on it.")
    if taken := _TAKEN.search(text):
        return NameTaken(cause, "Take another name, or rename that object.", object_id=int(taken[1] or taken[2]))
    for pattern, make in _MESSAGES:
        if pattern.search(text):
            return make(cause)
    if code == AUTHORIZATION:
        return NotAllowed(cause, "Give the user this right, or take a user of the group oneadmin (README, Privileges).")
    if code == ACTION or _WRONG_STATE.search(text):
        return WrongState(cause, "Look at the object's state and log in OpenNebula.", method=method, code=code)
    if _LEASE.search(text):
        step = "Check that the address lies in a range of the network and that no machine has it."
        return AddressTaken(cause, step, method=method, code=code)
    return CallFailed(cause, "See oned.log on the frontend.", method=method, code=code)


_MESSAGES: tuple[tuple[re.Pattern[str], Callable[[str], SnapferryError]], ...] = (
    (
        re.compile("Not enough space in datastore"),
        lambda cause: NoSpace(cause, "Free space in the datastore, or name another one in the plan."),
    ),
    (
        re.compile(r"limit of .* reached for .* quota"),
        lambda cause: NoSpace(cause, "Raise the user's quota, or take another user or datastore."),
    ),
    (
        re.compile("Invalid NAME"),
        lambda cause: BadName(cause, "Give the plan a `target_name` of letters, digits, dots, dashes and spaces."),
    ),
)
