"""What counts as an answer at the gate. How it is asked and survives is in tests/deployments, with a real worker."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from pydantic import ValidationError

from snapferry import opennebula, vsphere
from snapferry.convergence import judge
from snapferry.cutover import gate_fingerprint
from snapferry.errors import Refused
from snapferry.flows.gate import CutoverAnswer, Declined, Question, describe, judge_answer
from snapferry.migration import Migration
from snapferry.plan import MigrationPlan
from snapferry.record import BaseState, DiskRecord, MigrationRecord, Phase, RoundResult
from snapferry.vsphere.models import PowerState, SourceDisk, SourceVm

DISK = SourceDisk(
    key=2000, label="Hard disk 1", capacity_bytes=4 << 30, backing_uuid="6000C29a", file_name="[san1] web01/web01.vmdk",
    datastore="san1", datastore_kind="vmfs6", controller="pvscsi", controller_bus=0, unit=0, change_id="52/1",
    mode="persistent",
)  # fmt: skip
VM = SourceVm(
    moref="vm-1", name="web01", instance_uuid="5012", bios_uuid="4212", path="/dc1/vm/web01", vcenter_uuid="aa",
    power=PowerState.ON, host="esx1", cpus=2, cores_per_socket=1, memory_mib=2048, firmware="bios", secure_boot=False,
    guest_id="debian12_64Guest", guest_full_name="Debian", host_name="web01", tools="running", hardware_version=19,
    change_tracking=True, change_tracking_supported=True, consolidation_needed=False, is_template=False, annotation="",
    boot_time=None, disks=(DISK,), nics=(),
)  # fmt: skip
RECORD = MigrationRecord(
    migration_id="m1", template_id=1, target_name="web01", phase=Phase.WARM, vm_key=VM.key, vm_moref="vm-1",
    vm_name="web01",
    disks=(
        DiskRecord(
            image_id=1, image_name="web01-1", disk_uuid="6000C29a", key=2000, label="Hard disk 1", place="pvscsi0:0",
            capacity_bytes=4 << 30, state=BaseState.WARM, change_id="52/1", round=4,
        ),
    ),
)  # fmt: skip
YES: dict[str, Any] = {"approve": True, "vm": "web01", "when": "now"}


def migration(vm: SourceVm = VM, **fields: object) -> Migration:
    """A migration that has no ends: judging an answer asks neither."""
    plan = MigrationPlan.model_validate({"vm": "web01", "image_datastore": "default", **fields})
    return Migration(plan, cast(vsphere.Session, None), cast(opennebula.Client, None), vm, RECORD)


def question(about: Migration) -> Question:
    return Question(vm="web01", fingerprint=gate_fingerprint(about), asked=datetime.now(UTC), text="")


def judged(answer: dict[str, Any], now: Migration | None = None) -> datetime:
    return judge_answer(now or migration(), question(migration()), CutoverAnswer(**answer))[1]


def test_a_yes_with_the_vms_name_is_an_approval_for_now() -> None:
    assert abs(judged(YES) - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_yes_for_later_is_an_approval_for_then() -> None:
    assert judged(YES | {"when": "2100-01-31 22:00"}) == datetime(2100, 1, 31, 22, tzinfo=UTC)


def test_a_no_is_a_no_whatever_else_it_says() -> None:
    for answer in (YES | {"approve": False}, {"approve": False, "vm": "x", "when": "never"}):
        with pytest.raises(Declined, match="declined"):
            judged(answer)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"vm": "web02"}, "names 'web02', the VM is 'web01'"), ({"vm": "WEB01"}, "names"), ({"when": "soon"}, "neither")],
)
def test_a_wrong_name_or_time_is_refused(changes: dict[str, str], why: str) -> None:
    with pytest.raises(Refused, match=why) as caught:
        judged(YES | changes)
    assert not isinstance(caught.value, Declined)


def test_an_approval_is_void_once_the_disks_changed() -> None:
    grown = VM.model_copy(update={"disks": (DISK.model_copy(update={"capacity_bytes": 8 << 30}),)})
    with pytest.raises(Refused, match="disks changed"):
        judged(YES, migration(grown))


@pytest.mark.parametrize("left_out", ["approve", "vm", "when"])
def test_no_field_of_the_form_has_a_default(left_out: str) -> None:
    with pytest.raises(ValidationError):
        CutoverAnswer(**{name: value for name, value in YES.items() if name != left_out})


def test_the_form_shows_what_would_happen_and_why_an_answer_was_refused() -> None:
    window = {"start": "22:00", "end": "04:00", "timezone": "Europe/Vienna"}
    text = describe(migration(window=window, shutdown={"on_timeout": "power-off"}), "The answer names 'x'.")
    for part in (
        "The answer names 'x'.",
        "Cut over web01",
        "Hard disk 1",
        "22:00 to 04:00",
        "power-off",
        "| round | changed |",
    ):
        assert part in text


def test_the_form_says_what_of_the_predicted_downtime_is_assumed() -> None:
    asked = migration()
    delta = RoundResult(
        number=2, kind="delta", snapshot="snapshot-2", started=datetime.now(UTC), seconds=10, copy_seconds=10,
        since_base_seconds=100, changed_bytes=1_000_000_000, copied_bytes=1_000_000_000, disks=(),
    )  # fmt: skip
    last = delta.model_copy(update={"verdict": judge([delta], asked.plan)})
    asked.record = RECORD.model_copy(update={"rounds": (last,)})
    text = describe(asked)
    # 10 MB/s change for the round's 10 s and the shutdown's 20 s, and are copied at 100 MB/s
    assert "Predicted downtime: **33 s** (shutdown 20 s assumed, last changes 3 s, start 10 s assumed)." in text
    assert "\n1000.0 MB changed; a cutover now would take about 33 s, the plan allows 120 s." in text
