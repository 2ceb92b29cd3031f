"""The record survives its way through the target's attributes, and is doubted where somebody edited it."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.convergence import Verdict
from snapferry.errors import Refused, TargetError
from snapferry.opennebula.models import Image, ImageState, Template
from snapferry.record import (
    KEPT_ROUNDS,
    BaseState,
    CutoverRecord,
    DiskRecord,
    DiskResult,
    MigrationRecord,
    Phase,
    RoundResult,
    base_of_image,
    cutover_of_template,
    identity_of_template,
    read_disk,
    read_template_record,
    round_of_template,
    rounds_of_template,
)
from snapferry.vectors import Vector, pack
from snapferry.vsphere.models import SourceDisk

CHANGE_ID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81"


def one_round(number: int, kind: str = "delta") -> RoundResult:
    return RoundResult(
        number=number,
        kind=kind,  # type: ignore[arg-type]
        snapshot=f"snapshot-{number}",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=2.5,
        copy_seconds=2.0,
        since_base_seconds=60,
        changed_bytes=1 << 20,
        copied_bytes=1 << 20,
        disks=(DiskResult(key=2000, label="Hard disk 1", extents=3, changed_bytes=1 << 20, read_bytes=1 << 20,
                          zero_bytes=0, seconds=2.0),),
        verdict=Verdict(decision="another", predicted_downtime_seconds=30, parts={"start": 10}, reason="because"),
    )  # fmt: skip


DISK = DiskRecord(
    image_id=7, image_name="web01-disk-0", disk_uuid="6000C29a", key=2000, label="Hard disk 1", place="pvscsi0:0",
    capacity_bytes=(1 << 30) + 512, state=BaseState.WARM, change_id=CHANGE_ID, snapshot="snapshot-3",
    taken=datetime(2026, 1, 1, 12, 0, 0, 250, tzinfo=UTC), copy_id="c0ffee", keeps_snapshot=True, round=3,
)  # fmt: skip
RECORD = MigrationRecord(
    migration_id="abc123", template_id=4, target_name="web01", phase=Phase.WARM, vm_key="vc/uuid", vm_moref="vm-12",
    vm_name='we"b]01 <ü>', tracking_enabled_by_us=True,
    untracked="the plan asks for compare", round_number=3, round_snapshot="snapshot-3",
    rounds=(one_round(1, "base"), one_round(2)), disks=(DISK,),
    cutover=CutoverRecord(intent="shutdown", started=datetime(2026, 1, 1, tzinfo=UTC), nics={4000: True}),
)  # fmt: skip


def template_of(record: MigrationRecord, **changes: Any) -> Template:
    attributes: dict[str, Any] = (
        identity_of_template(record)
        | round_of_template(record.round_number, record.round_snapshot)
        | rounds_of_template(record.rounds)
    )
    if record.cutover:
        attributes |= cutover_of_template(record.cutover)
    return Template(id=4, name="web01", attributes=attributes | changes)


def image_of(disk: DiskRecord, **changes: Any) -> Image:
    identity = {
        "VERSION": "1", "ID": "abc123", "OWN_ID": "7", "VM_KEY": "vc/uuid", "DISK_UUID": disk.disk_uuid,
        "DISK_KEY": str(disk.key), "LABEL": pack(disk.label), "PLACE": disk.place,
        "CAPACITY": str(disk.capacity_bytes),
    }  # fmt: skip
    fields: dict[str, Any] = {
        "id": 7, "name": disk.image_name, "state": ImageState.DISABLED, "source": "/x", "size_mib": 1025, "type": 0,
        "format": "raw", "persistent": True, "datastore_id": 1, "vms": (),
        "attributes": {"SNAPFERRY": identity} | base_of_image(disk),
    }  # fmt: skip
    return Image(**fields | changes)


def test_a_record_reads_as_it_was_written() -> None:
    assert read_template_record(template_of(RECORD), [image_of(DISK)]) == RECORD


def test_a_clone_of_an_image_or_template_is_not_taken_for_the_original() -> None:
    assert read_disk(image_of(DISK, id=8)) is None
    clone = template_of(RECORD).model_copy(update={"id": 5})
    assert read_template_record(clone, []) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"SNAPFERRY_ROUNDS": {"HISTORY": "not base64!"}},
        {"SNAPFERRY_ROUNDS": {"HISTORY": base64.b64encode(b"not zlib").decode()}},
        {"SNAPFERRY_ROUNDS": {"HISTORY": pack([{"number": "many"}])}},
        {"SNAPFERRY_CUTOVER": {"DETAILS": pack({"intent": 1})}},
        {"SNAPFERRY_ROUND": {"NUMBER": "three", "SNAPSHOT": ""}},
        {"SNAPFERRY": {"ID": "abc123", "PHASE": "upside down", "VM_KEY": "x", "VM_MOREF": "y", "VM_NAME": pack("z")}},
    ],
)
def test_an_edited_record_is_an_error_and_never_a_fresh_vm(damage: dict[str, Any]) -> None:
    with pytest.raises(TargetError, match="can't be read"):
        read_template_record(template_of(RECORD, **damage), [])


def test_a_base_whose_state_was_wiped_counts_as_partial_not_as_empty() -> None:
    image = image_of(DISK)
    wiped = image.model_copy(update={"attributes": {"SNAPFERRY": image.attributes["SNAPFERRY"]}})
    found = read_disk(wiped)
    assert found is not None
    assert (found.state, found.change_id) == (BaseState.PARTIAL, None)


def test_the_history_keeps_the_base_and_the_newest_rounds() -> None:
    rounds = (one_round(1, "base"), *(one_round(n) for n in range(2, 200)))
    vector = Vector.of(rounds_of_template(rounds), "SNAPFERRY_ROUNDS")
    assert vector is not None
    kept = vector.packed("HISTORY")
    assert [one["number"] for one in kept] == [1, *range(200 - KEPT_ROUNDS + 1, 200)]
    assert len(vector.get("HISTORY")) < 20_000, "pool listings carry it: keep it to KBs"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.lists(one), max_leaves=8))
def test_any_text_survives_packing(value: Any) -> None:
    packed = pack(value)
    assert packed.isascii() and "]" not in packed and '"' not in packed
    assert Vector({"X": packed}).packed("X") == value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"capacity_bytes": 2 << 30}, "2147483648"),
        ({"backing_uuid": "other"}, "Hard disk 1"),
        ({"unit": 1}, "pvscsi0:1"),
        ({"key": 2001}, "Hard disk 1"),
    ],
)
def test_a_disk_that_was_swapped_moved_or_resized_is_refused(change: dict[str, Any], says: str) -> None:
    disk = SourceDisk(
        key=2000, label="Hard disk 1", capacity_bytes=DISK.capacity_bytes, backing_uuid="6000C29a", file_name="[a] b",
        datastore="a", datastore_kind="vmfs6", controller="pvscsi", controller_bus=0, unit=0, change_id=None,
        mode="persistent",
    )  # fmt: skip
    RECORD.check_disks((disk,))
    for disks in ((disk.model_copy(update=change),), (), (disk, disk.model_copy(update={"backing_uuid": "new"}))):
        with pytest.raises(Refused, match="disks changed"):
            RECORD.check_disks(disks)
    with pytest.raises(Refused, match=says):
        RECORD.check_disks((disk.model_copy(update=change),))


def test_snapshots_stay_for_bases_that_stand_on_them_and_for_no_others() -> None:
    assert RECORD.kept_snapshots == {"snapshot-3"}
    for change in ({"keeps_snapshot": False}, {"state": BaseState.PARTIAL}, {"state": BaseState.DIVERGED}):
        assert not RECORD.model_copy(update={"disks": (DISK.model_copy(update=change),)}).kept_snapshots
    assert not RECORD.model_copy(update={"phase": Phase.MIGRATED}).kept_snapshots
