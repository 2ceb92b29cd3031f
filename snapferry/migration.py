"""One VM's move: the plan, both sessions, the VM and the record."""

import hashlib
from threading import Event, Lock
from typing import Self

from snapferry import opennebula, vsphere
from snapferry.errors import PlanError, Refused
from snapferry.lease import TAKE_SECONDS, TERM_SECONDS, Lease
from snapferry.plan import MigrationPlan, vm_name
from snapferry.record import DiskRecord, MigrationRecord, Phase, RoundResult, identity_of_template
from snapferry.survey import find_record, find_records
from snapferry.vsphere.models import Snapshot, SourceVm


class Migration:
    """What every step of a move works with. Opening it changes nothing.

    Args:
        plan: what shall be moved, and how.
        source: session with vCenter.
        target: client of OpenNebula.
        vm: the VM as it is now.
        record: what the target says of its move; None where it hasn't begun.
    """

    def __init__(
        self,
        plan: MigrationPlan,
        source: vsphere.Session,
        target: opennebula.Client,
        vm: SourceVm,
        record: MigrationRecord | None,
    ) -> None:
        self.plan = plan
        self.source = source
        self.target = target
        self.vm = vm
        self.record = record
        self.lease_seconds = TERM_SECONDS
        self.rounds_of_this_run: list[RoundResult] = []
        self._noting = Lock()

    @classmethod
    def open(cls, plan: MigrationPlan, source: vsphere.Session, target: opennebula.Client) -> Self:
        """Finds the VM and its record.

        Raises:
            PlanError: there is no such VM, or several.
            SnapferryError: an end can't be asked.
        """
        vm = _find_vm(plan, source, target)
        return cls(plan, source, target, vm, find_record(target, vm))

    @property
    def planned(self) -> MigrationRecord:
        """The record of a move that has begun.

        Raises:
            Refused: it hasn't.
        """
        if self.record is None:
            raise Refused(
                f"{self.vm.name}: nothing has been copied yet.", "Run `snapferry presync` or `snapferry migrate`."
            )
        return self.record

    def refresh(self) -> None:
        """Reads VM and record again."""
        self.vm = vsphere.read_vm(self.source, self.vm.moref)
        self.record = find_record(self.target, self.vm)

    def lease(self, stop: Event, take_seconds: float = TAKE_SECONDS) -> Lease:
        """The right to work on this VM; see `Lease`. What was read before it was taken may be old: `refresh` inside."""
        return Lease(self.target, self.planned.template_id, self.vm.name, stop, self.lease_seconds, take_seconds)

    def base_key(self) -> str:
        """Names the base that the images' records hold now; `none` before the first preparation."""
        if self.record is None:
            return "none"
        ids = [f"{one.image_id}:{one.state}:{one.change_id}:{one.round}" for one in self.record.disks]
        digest = hashlib.sha256("|".join(sorted(ids)).encode()).hexdigest()[:16]
        return f"{self.record.migration_id}:{self.record.round_number}:{digest}"

    def note_disk(self, disk: DiskRecord) -> None:
        """Takes what has just been written into an image's record; by any number of threads."""
        with self._noting:
            disks = tuple(disk if one.image_id == disk.image_id else one for one in self.planned.disks)
            self.record = self.planned.model_copy(update={"disks": disks})

    def set_phase(self, phase: Phase) -> None:
        """Writes the phase into the record, where it differs."""
        if self.planned.phase != phase:
            self.record = self.planned.model_copy(update={"phase": phase})
            opennebula.update_template(self.target, self.planned.template_id, identity_of_template(self.planned))

    def close(self) -> None:
        """Ends both sessions."""
        try:
            self.source.close()
        finally:
            self.target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _find_vm(plan: MigrationPlan, source: vsphere.Session, target: opennebula.Client) -> SourceVm:
    """The plan's VM, also where a cutover has renamed it: then a record at the target knows it by its old name."""
    try:
        return vsphere.find_vm(source, plan.vm)
    except PlanError:
        name = vm_name(plan.vm)
        renamed = [one for one in find_records(target) if one.vm_name == name and one.cutover]
        if not renamed:
            raise
        try:
            vm = vsphere.read_vm(source, renamed[-1].vm_moref)
        except vsphere.VmGone:
            vm = None
        if vm is None or vm.key != renamed[-1].vm_key or not vm.path.startswith(_folder(plan.vm)):
            raise
        return vm


def _folder(reference: str) -> str:
    """What the path of a VM begins with: its folder, where a reference names one."""
    return reference.rsplit("/", 1)[0] + "/" if reference.startswith("/") else ""


def leftover_snapshots(vm: SourceVm, record: MigrationRecord) -> tuple[Snapshot, ...]:
    """Snapshots of this migration: its rounds', and the one for the stun where we switched tracking on."""
    ours = vsphere.our_snapshots(vm, record.migration_id)
    stun = vsphere.STUN_NAME if record.tracking_enabled_by_us else None
    return tuple(one for one in vm.snapshots if one in ours or one.name == stun)


def foreign_snapshots(vm: SourceVm) -> tuple[str, ...]:
    """Names of the snapshots that aren't ours."""
    ours = {one.moref for one in vsphere.our_snapshots(vm)}
    return tuple(one.name for one in vm.snapshots if one.moref not in ours)
