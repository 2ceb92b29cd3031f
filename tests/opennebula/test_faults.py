"""Each answer of the frontend becomes an error that says what to do; the texts are those of a real 7.4.0."""

import pytest

from snapferry.errors import Refused, SnapferryError, TargetError
from snapferry.opennebula import (
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
from snapferry.opennebula.faults import named_error

ANSWERS = [
    ("system.version", 256, "[one.system.version] User couldn't be authenticated, aborting call.", WrongPassword),
    ("image.info", 512, "[one.image.info] User [2] : Not authorized to perform USE IMAGE [0].", NotAllowed),
    ("image.allocate", 512, "[one.image.allocate] User [2] : Template includes a restricted attribute SOURCE.",
     NotAllowed),
    ("image.update", 512, "[one.image.update] User [0] : IMAGE is locked. [0].", Locked),
    (
        "image.allocate", 512,
        "[one.image.allocate] User [2] : user [2] limit of 40 reached for SIZE quota in DATASTORE with ID: 1.", NoSpace,
    ),
    ("image.info", 1024, "[one.image.info] Error getting image [999].", NoSuchObject),
    ("image.allocate", 2048, "[one.image.allocate] Not enough space in datastore", NoSpace),
    ("image.lock", 2048, "[one.image.lock] 1795373275", Locked),
    ("image.delete", 2048, "[one.image.delete] Cannot delete image. There are 1 VMs using it.", WrongState),
    ("image.rename", 2048, "[one.image.rename] image cannot be renamed to a because it collides with image 1",
     NameTaken),
    (
        "vm.action", 2048,
        '[one.vm.action] Error performing action "poweroff-hard": This action is not available for state POWEROFF',
        WrongState,
    ),
    ("image.enable", 8192, "[one.image.enable] Could not disable image: Image cannot be in state USED.", WrongState),
    ("template.allocate", 8192, "[one.template.allocate] NAME is already taken by TEMPLATE 0.", NameTaken),
    (
        "image.allocate", 16384,
        "[one.image.allocate] Error allocating a new image. NAME is already taken by IMAGE 0.", NameTaken,
    ),
    (
        "image.allocate", 16384,
        "[one.image.allocate] Error allocating a new image. Invalid NAME, it cannot be empty", BadName,
    ),
    (
        "template.instantiate", 16384,
        "[one.template.instantiate] Error allocating a new virtual machine template. "
        "DISK 1: Cannot acquire image 0, it is in state: DISABLED", WrongState,
    ),
    (
        "template.instantiate", 16384,
        "[one.template.instantiate] Error allocating a new virtual machine template. "
        "Cannot get IP/MAC lease from virtual network 0.", AddressTaken,
    ),
    ("vn.hold", 8192, "[one.vn.hold] Address is not part of the address range or in use.", AddressTaken),
    ("template.update", 4096, "[one.template.update] Wrong update type", CallFailed),
    ("image.update", 8192, "[one.image.update] Cannot update template. Parse error: XML Template malformed.",
     CallFailed),
    ("image.info", 0x12345, "[one.image.info] of a later version", CallFailed),
]  # fmt: skip


@pytest.mark.parametrize(("method", "code", "message", "expected"), ANSWERS)
def test_an_answer_becomes_its_named_error(
    method: str, code: int, message: str, expected: type[SnapferryError]
) -> None:
    error = named_error(method, code, message)
    assert type(error) is expected
    assert error.next_step
    assert isinstance(error, Refused | TargetError)


def test_a_taken_lock_tells_since_when() -> None:
    error = named_error("template.lock", 2048, "[one.template.lock] 1795373275")
    assert isinstance(error, Locked)
    assert error.time == 1795373275
    assert error.since is not None
    assert error.since.year == 2026


def test_a_taken_name_tells_who_has_it() -> None:
    error = named_error("template.allocate", 8192, "[one.template.allocate] NAME is already taken by TEMPLATE 17.")
    assert isinstance(error, NameTaken)
    assert error.object_id == 17
