"""VMs whose names mean something to a shell or to a terminal, and names that nobody has."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapferry.command_line import command_line
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDisk, LabNic, LabVCenter, LabVm
from snapferry.prepare import prepare
from snapferry.watch import Watch

from ..engine.conftest import Ends, ends
from .conftest import Ran

__all__ = ["ends"]

ODD = "[red]it's; $(reboot)[/]"
TWICE = "web01"


@pytest.mark.parametrize("name", ["web01", ODD, "--force", "a\nb", ""])
def test_a_command_in_a_message_is_one_command_in_a_shell(name: str) -> None:
    words = shlex.split(command_line("reconcile", name))
    assert (words[:2], words[-1]) == (["snapferry", "reconcile"], name)
    assert words[2:-1] == (["--"] if name.startswith("-") else [])


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_prefect: None, snapferry: object) -> Iterator[Lab]:
    """A lab that the environment describes, with an odd name and one that two VMs have."""
    disks, nics = (LabDisk(capacity_bytes=1 << 20, data_bytes=64 << 10),), (LabNic(network="VM Network"),)
    vms = [
        LabVm(name=name, folder=folder, disks=disks, nics=nics)
        for name, folder in ((ODD, "prod"), (TWICE, "prod"), (TWICE, "test"))
    ]
    with up(LabConfig(vcenter=LabVCenter(vms=tuple(vms))), tmp_path / "lab") as lab:
        for name, value in lab.endpoints.environment().items():
            monkeypatch.setenv(name, value)
        yield lab


def test_assess_tells_vms_of_one_name_apart_and_says_what_it_left_out(
    lab: Lab, tmp_path: Path, snapferry: Callable[..., Ran]
) -> None:
    code, out, _ = snapferry("assess")
    assert code == 0, out
    for path in (f"prod/{TWICE}", f"test/{TWICE}", f"prod/{ODD.replace('/', '%2f')}"):
        assert out.count(f"/Vienna/dc1/vm/{path} ") >= 2, out  # whether it is ready, and how its disk is read
    assert "Only the source was looked at" in out

    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps({"vm": ODD, "image_datastore": "nowhere"}))
    code, out, _ = snapferry("assess", "--plan", str(plan))
    assert (code, "nowhere" in out, "Only the source" in out) == (3, True, False), out
    assert "OpenNebula takes no object named" in out


def test_status_says_whether_a_name_is_known_at_all(lab: Lab, ends: Ends, snapferry: Callable[..., Ran]) -> None:
    assert "No VM is being moved." in snapferry("status").out
    assert "No move of 'tpyo' has begun, nor of any other VM." in snapferry("status", "tpyo").out

    prepare(ends.migration(lab, ODD, target_name="odd"), Watch())
    assert f"Begun: {ODD}." in snapferry("status", "tpyo").out
    code, out, _ = snapferry("status", ODD)
    assert (code, ODD in out, "No move" in out) == (0, True, False), out


def test_doctor_counts_every_vm_and_checks_the_named_one(lab: Lab, snapferry: Callable[..., Ran]) -> None:
    _, out, _ = snapferry("doctor", ODD)
    assert "3 VM(s) can be seen." in out
    assert f"All privileges are there on {ODD}." in out
