"""What has been done: kept at the target, on the VM template and on each image, so that any worker can take over.

What is true of the VM stands in the template's attributes, what is true of a disk in its image's. Each attribute is a
vector of its own with one writer, because an update replaces whole vectors and nothing compares before it sets.

| object | attribute | says |
|---|---|---|
| template | `SNAPFERRY` | which migration of which VM, its phase |
| template | `SNAPFERRY_ROUND` | the snapshot of the round under way |
| template | `SNAPFERRY_ROUNDS` | the rounds so far (compressed JSON) |
| template | `SNAPFERRY_CUTOVER` | intents of the cutover, each written before its act |
| template | `SNAPFERRY_DOWNTIME` | what rolled-back cutovers cost so far, and why the last one failed |
| template | `SNAPFERRY_LEASE` | who holds the VM (`snapferry.lease`) |
| image | `SNAPFERRY` | which disk of which VM this image takes |
| image | `SNAPFERRY_BASE` | how much of the disk it holds: the base |
"""

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from snapferry.convergence import Verdict
from snapferry.errors import Refused, TargetError
from snapferry.opennebula.models import Image, Template
from snapferry.plan import ChangesBy, Frozen
from snapferry.vectors import Vector, pack
from snapferry.vsphere.models import SourceDisk, SourceVm

VERSION = "1"
KEPT_ROUNDS = 60
MOST_HISTORY_BYTES = 24_000
"""Pool listings carry every attribute, and a value of 64 KiB is refused."""


class Phase(StrEnum):
    """Where a migration stands."""

    PLANNED = "planned"
    SYNCING = "syncing"
    WARM = "warm"
    CUTTING_OVER = "cutting over"
    MIGRATED = "migrated"
    ROLLED_BACK = "rolled back"
    ABANDONED = "abandoned"


class BaseState(StrEnum):
    """What an image holds of its disk."""

    EMPTY = "empty"
    """Not a byte was written since we made it: it reads as zeros."""
    PARTIAL = "partial"
    """A base copy of the snapshot whose id stands there began; what of it is there only its journal knows."""
    WARM = "warm"
    """The disk as of the snapshot whose id is the base, or later where a delta was being applied."""
    DIVERGED = "diverged"
    """Something else than the pump wrote, or may have: no id counts any more."""


RoundKind = Literal["base", "delta", "compare", "final"]
"""`base`: everything was looked at; `delta`: what changed; `compare`: everything, because nothing tells what changed;
`final`: what changed until the power-off."""


class DiskResult(Frozen):
    """What one round did for one disk."""

    key: int
    label: str
    extents: int
    changed_bytes: int
    read_bytes: int
    zero_bytes: int
    seconds: float
    differing_bytes: int | None = None
    """What differed from the image and was written, where every block was compared; None where none was."""
    route: str = ""
    """By which way the bytes came; see `plan.Route`."""
    detour: str = ""
    """Which ways failed before, and why; empty where the first one did it."""
    changes: ChangesBy = ChangesBy.TRACKING
    """By what it was found out what changed."""
    doubt: str = ""
    """Why every block was looked at although there was a base; empty where the delta was trusted."""


class RoundResult(Frozen):
    """What one round did."""

    number: int
    kind: RoundKind
    snapshot: str
    """moref of its snapshot; empty for the last changes of a powered-off VM."""
    started: datetime
    seconds: float
    """From before the snapshot until it was let go."""
    copy_seconds: float
    since_base_seconds: float
    """From the snapshot of the round before to this one's."""
    changed_bytes: int
    copied_bytes: int
    disks: tuple[DiskResult, ...]
    verdict: Verdict | None = None

    @property
    def bytes_per_second(self) -> float:
        """Rate of the copy, over all disks."""
        return self.copied_bytes / self.copy_seconds if self.copy_seconds else 0.0

    @property
    def predicted_downtime_seconds(self) -> float | None:
        """What a cutover right after this round would have taken; a base can't tell, since it shows no delta."""
        return self.verdict.predicted_downtime_seconds if self.verdict and self.kind != "base" else None


class DiskRecord(Frozen):
    """One disk's image and its base."""

    image_id: int
    image_name: str
    disk_uuid: str
    """`backing.uuid` of the source's disk."""
    key: int
    label: str
    place: str
    capacity_bytes: int
    state: BaseState = BaseState.EMPTY
    change_id: str | None = None
    """Id of the snapshot that is copied (partial) or was (warm); a base for a delta only where it is warm."""
    snapshot: str = ""
    taken: datetime | None = None
    """When that snapshot was taken, by vCenter's clock."""
    copy_id: str = ""
    """Random name of the base copy, new each time one starts from nothing: a journal speaks of one copy only."""
    keeps_snapshot: bool = False
    """Whether that snapshot stays until the next round's data has landed, because delta files tell the changes."""
    whole: bool = False
    """Whether the copy under way reads the whole disk, because the allocation map isn't believed: whoever goes on with
    it doesn't believe the map either."""
    round: int = 0


class CutoverRecord(Frozen):
    """How far a cutover went; intents are written before their acts."""

    intent: str
    started: datetime
    approved_by: str = ""
    was_on: bool = True
    """Whether the source ran when the cutover began."""
    nics: dict[int, bool] = {}
    """`connect at power on` of the source's NICs before we changed it, by key."""
    released: bool = False
    """Whether the machine at the target may have been started."""
    past_no_return: bool = False
    """Whether it ran (or the template was handed over): from then on there is only forward."""
    machine_id: int | None = None
    downtime_seconds: float | None = None
    parts: dict[str, float] = {}


class MigrationRecord(Frozen):
    """What is true of one VM's move."""

    migration_id: str
    template_id: int
    target_name: str
    phase: Phase
    vm_key: str
    vm_moref: str
    vm_name: str
    tracking_enabled_by_us: bool = False
    untracked: str = ""
    """Why change tracking isn't used; empty where it is."""
    round_number: int = 0
    """The round under way, or the last one."""
    round_snapshot: str = ""
    """moref of the snapshot of the round under way; empty where there is none."""
    rounds: tuple[RoundResult, ...] = ()
    disks: tuple[DiskRecord, ...] = ()
    cutover: CutoverRecord | None = None
    rolled_back_seconds: float = 0.0
    """Downtime of all cutovers that were rolled back."""
    rolled_back_at: str = ""
    """When the last of these began: it is added once, however often its roll-back is repeated."""
    rolled_back_cause: str = ""
    """Why that one failed."""

    @property
    def open(self) -> bool:
        """Whether the migration is still under way."""
        return self.phase not in (Phase.MIGRATED, Phase.ABANDONED)

    @property
    def kept_snapshots(self) -> frozenset[str]:
        """morefs of the snapshots that stay between rounds, because a disk's base stands on them."""
        disks = self.disks if self.open else ()
        return frozenset(one.snapshot for one in disks if one.keeps_snapshot and one.state == BaseState.WARM)

    def disk(self, disk: SourceDisk) -> DiskRecord:
        """The record of a source disk.

        Raises:
            Refused: the VM has a disk that the record doesn't know.
        """
        for one in self.disks:
            if one.disk_uuid == disk.backing_uuid:
                return one
        raise Refused(f"{self.vm_name}: {disk.label} isn't part of the migration.", DISK_SET_CHANGED)

    def check_disks(self, disks: tuple[SourceDisk, ...]) -> None:
        """Compares the VM's disks with the record.

        Raises:
            Refused: a disk was added, removed, swapped, moved or resized.
        """
        was = {(one.disk_uuid, one.key, one.place, one.capacity_bytes): one.label for one in self.disks}
        now = {(one.backing_uuid, one.key, one.place, one.capacity_bytes): one.label for one in disks}
        if set(was) == set(now):
            return
        gone = [f"{was[one]} ({one[3]} bytes at {one[2]})" for one in was if one not in now]
        new = [f"{now[one]} ({one[3]} bytes at {one[2]})" for one in now if one not in was]
        raise Refused(
            f"{self.vm_name}: the disks changed since the migration began"
            f" (gone: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}).",
            DISK_SET_CHANGED,
        )


DISK_SET_CHANGED = "Run `snapferry abandon`, then start again: the base copies have to be made for these disks."

_ROUNDS = TypeAdapter(tuple[RoundResult, ...])


def identity_of_template(record: MigrationRecord) -> dict[str, dict[str, str]]:
    """The template's attribute that says which migration this is, and its phase."""
    return {
        "SNAPFERRY": {
            "VERSION": VERSION,
            "ID": record.migration_id,
            "OWN_ID": str(record.template_id) if record.template_id >= 0 else "",
            "PHASE": record.phase.value,
            "VM_KEY": record.vm_key,
            "VM_MOREF": record.vm_moref,
            "VM_NAME": pack(record.vm_name),
            "TRACKING": "ours" if record.tracking_enabled_by_us else "",
            "UNTRACKED": pack(record.untracked) if record.untracked else "",
        }
    }


def identity_of_image(migration_id: str, vm: SourceVm, disk: SourceDisk, image_id: int | None) -> dict[str, Any]:
    """The image's attribute that says which disk it takes."""
    return {
        "SNAPFERRY": {
            "VERSION": VERSION,
            "ID": migration_id,
            "OWN_ID": "" if image_id is None else str(image_id),
            "VM_KEY": vm.key,
            "DISK_UUID": disk.backing_uuid,
            "DISK_KEY": str(disk.key),
            "LABEL": pack(disk.label),
            "PLACE": disk.place,
            "CAPACITY": str(disk.capacity_bytes),
        }
    }


def base_of_image(disk: DiskRecord) -> dict[str, dict[str, str]]:
    """The image's attribute that says what it holds."""
    return {
        "SNAPFERRY_BASE": {
            "STATE": disk.state.value,
            "CHANGE_ID": disk.change_id or "",
            "SNAPSHOT": disk.snapshot,
            "KEPT": "yes" if disk.keeps_snapshot else "",
            "TAKEN": disk.taken.isoformat() if disk.taken else "",
            "COPY": disk.copy_id,
            "WHOLE": "yes" if disk.whole else "",
            "ROUND": str(disk.round),
            "AT": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    }


def round_of_template(number: int, snapshot: str) -> dict[str, dict[str, str]]:
    """The template's attribute that names the round under way and its snapshot."""
    return {"SNAPFERRY_ROUND": {"NUMBER": str(number), "SNAPSHOT": snapshot}}


def rounds_of_template(rounds: tuple[RoundResult, ...]) -> dict[str, dict[str, str]]:
    """The template's attribute with the last rounds; the base stays, since its rate is worth most."""
    kept = list(rounds if len(rounds) <= KEPT_ROUNDS else (rounds[0], *rounds[1 - KEPT_ROUNDS :]))
    while len(history := pack(_ROUNDS.dump_python(tuple(kept), mode="json"))) > MOST_HISTORY_BYTES and len(kept) > 2:
        del kept[1]
    return {"SNAPFERRY_ROUNDS": {"HISTORY": history}}


def cutover_of_template(cutover: CutoverRecord) -> dict[str, dict[str, str]]:
    """The template's attribute with the cutover's intents."""
    return {"SNAPFERRY_CUTOVER": {"INTENT": cutover.intent, "DETAILS": pack(cutover.model_dump(mode="json"))}}


def rolled_back_of_template(
    record: MigrationRecord, started: datetime, seconds: float, cause: str
) -> dict[str, dict[str, str]]:
    """The template's attribute with the downtime of rolled-back cutovers, one that began at `started` added."""
    at = started.isoformat()
    added = seconds if at != record.rolled_back_at else 0.0
    return {
        "SNAPFERRY_DOWNTIME": {"SECONDS": f"{record.rolled_back_seconds + added:.1f}", "LAST": at, "CAUSE": pack(cause)}
    }


def read_disk(image: Image) -> DiskRecord | None:
    """The record that an image carries; None where it carries none of ours, or another image's (a clone).

    Raises:
        TargetError: the record is there and can't be read.
    """
    mine = Vector.of(image.attributes, "SNAPFERRY")
    if mine is None or mine.get("OWN_ID", str(image.id)) not in ("", str(image.id)):
        return None
    base = Vector.of(image.attributes, "SNAPFERRY_BASE") or Vector({})
    try:
        return DiskRecord(
            image_id=image.id,
            image_name=image.name,
            disk_uuid=mine.get("DISK_UUID"),
            key=int(mine.get("DISK_KEY")),
            label=mine.packed("LABEL"),
            place=mine.get("PLACE"),
            capacity_bytes=int(mine.get("CAPACITY")),
            state=BaseState(base.get("STATE") or BaseState.PARTIAL),
            change_id=base.get("CHANGE_ID") or None,
            snapshot=base.get("SNAPSHOT"),
            keeps_snapshot=base.get("KEPT") == "yes",
            taken=datetime.fromisoformat(base.get("TAKEN")) if base.get("TAKEN") else None,
            copy_id=base.get("COPY"),
            whole=base.get("WHOLE") == "yes",
            round=base.number("ROUND") or 0,
        )
    except (ValueError, ValidationError, zlib.error) as error:
        raise _unreadable(f"image {image.id} ({image.name})") from error


def read_template_record(template: Template, images: list[Image]) -> MigrationRecord | None:
    """The record that a template carries, with those of its images; None where it isn't ours, or is a clone.

    Raises:
        TargetError: the record is there and can't be read.
    """
    mine = Vector.of(template.attributes, "SNAPFERRY")
    if mine is None or mine.get("OWN_ID", str(template.id)) not in ("", str(template.id)):
        return None
    under_way = Vector.of(template.attributes, "SNAPFERRY_ROUND") or Vector({})
    history = Vector.of(template.attributes, "SNAPFERRY_ROUNDS") or Vector({})
    cutover = Vector.of(template.attributes, "SNAPFERRY_CUTOVER")
    downtime = Vector.of(template.attributes, "SNAPFERRY_DOWNTIME") or Vector({})
    ours = [image for image in images if _migration_of(image.attributes) == mine.get("ID")]
    try:
        return MigrationRecord(
            migration_id=mine.get("ID"),
            template_id=template.id,
            target_name=template.name,
            phase=Phase(mine.get("PHASE")),
            vm_key=mine.get("VM_KEY"),
            vm_moref=mine.get("VM_MOREF"),
            vm_name=mine.packed("VM_NAME"),
            tracking_enabled_by_us=mine.get("TRACKING") == "ours",
            untracked=mine.packed("UNTRACKED") or "",
            round_number=under_way.number("NUMBER") or 0,
            round_snapshot=under_way.get("SNAPSHOT"),
            rounds=_ROUNDS.validate_python(history.packed("HISTORY") or ()),
            disks=tuple(sorted((disk for image in ours if (disk := read_disk(image))), key=lambda disk: disk.key)),
            cutover=CutoverRecord.model_validate(cutover.packed("DETAILS")) if cutover else None,
            rolled_back_seconds=float(downtime.get("SECONDS") or 0),
            rolled_back_at=downtime.get("LAST"),
            rolled_back_cause=downtime.packed("CAUSE") or "",
        )
    except (ValueError, ValidationError, zlib.error) as error:
        raise _unreadable(f"template {template.id} ({template.name})") from error


def _value(attributes: Mapping[str, Any], name: str) -> str:
    vector = Vector.of(attributes, "SNAPFERRY")
    return vector.get(name) if vector else ""


def _migration_of(attributes: Mapping[str, Any]) -> str:
    return _value(attributes, "ID")


def _unreadable(what: str) -> TargetError:
    return TargetError(
        f"The record on {what} can't be read.",
        "Somebody may have edited its SNAPFERRY attributes. Restore them, or abandon the migration by hand: delete the"
        " template, its images and the snapshots named snapferry-… of the VM.",
    )
