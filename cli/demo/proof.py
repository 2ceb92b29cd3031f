"""What the demo proves: each disk has the same SHA-256 at both ends, and the VM runs at one of them alone."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from snapferry import opennebula
from snapferry.blocks import find_opennebula, find_vcenter
from snapferry.lab import Endpoints, LabControl
from snapferry.migration import Migration
from snapferry.plan import MigrationPlan
from snapferry.record import DiskRecord
from snapferry.report import Report, build_report
from snapferry.survey import find_records


class DiskProof(NamedTuple):
    """One disk at both ends."""

    label: str
    source_sha256: str
    target_sha256: str

    @property
    def equal(self) -> bool:
        return self.source_sha256 == self.target_sha256


class Proof(NamedTuple):
    """Both ends, compared."""

    disks: tuple[DiskProof, ...]
    machine_id: int | None
    machine_state: str
    source_power: str
    downtime: str
    report_json: str

    @property
    def good(self) -> bool:
        """Whether every disk is equal, the target runs and the source is off."""
        runs = (self.machine_state, self.source_power) == ("RUNNING", "poweredOff")
        return runs and bool(self.disks) and all(one.equal for one in self.disks)


def prove(endpoints: Endpoints, plan: MigrationPlan) -> Proof:
    """Hashes both ends after a migration.

    Raises:
        SnapferryError: an end can't be asked.
        subprocess.CalledProcessError: sha256sum failed.
    """
    control = LabControl(endpoints)
    with find_vcenter(plan.vcenter).session() as source, find_opennebula(plan.opennebula).client() as target:
        uuid = find_records(target)[0].vm_key.rsplit("/", 1)[1]  # the source has another name by now
        migration = Migration.open(plan.model_copy(update={"vm": uuid}), source, target)
        report = build_report(migration)
        disks = _compare(control, migration)
        state = _state(target, report.machine_id)
        power = control.power(migration.vm.name)
    return Proof(disks, report.machine_id, state, power, _downtime(report), _json(report, disks))


def _compare(control: LabControl, migration: Migration) -> tuple[DiskProof, ...]:
    """Hashes the disks in the report's order, both ends at once."""
    places = [disk.key for disk in migration.vm.disks]
    records = migration.planned.disks
    with ThreadPoolExecutor(len(records)) as pool:
        targets = pool.map(lambda disk: _target_digest(migration.target, migration.plan, disk), records)
        sources = [control.digest(migration.vm.name, places.index(disk.key)) for disk in records]
        return tuple(DiskProof(disk.label, *digests) for disk, *digests in zip(records, sources, targets, strict=True))


def _target_digest(target: opennebula.Client, plan: MigrationPlan, disk: DiskRecord) -> str:
    """SHA-256 of the image's file, which has to be as long as the disk."""
    image = opennebula.read_image(target, disk.image_id)
    path = opennebula.image_path(target, image, opennebula.find_datastore(target, plan.image_datastore))
    if path.stat().st_size != disk.capacity_bytes:
        return f"{path.stat().st_size} bytes instead of {disk.capacity_bytes}"
    done = subprocess.run(["sha256sum", str(path)], capture_output=True, check=True, text=True, timeout=300)
    return done.stdout.split()[0]


def _state(target: opennebula.Client, machine_id: int | None) -> str:
    if machine_id is None:
        return "not there"
    return opennebula.state_name(opennebula.read_machine(target, machine_id))


def _downtime(report: Report) -> str:
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.downtime_parts.items())
    return f"{report.downtime_seconds or 0:.1f} s ({parts})"


def _json(report: Report, disks: tuple[DiskProof, ...]) -> str:
    """The report with both digests of each disk, as docs/report.schema.json has it."""
    whole = report.model_dump(mode="json")
    for entry, disk in zip(whole["disks"], disks, strict=True):
        entry |= {"source_sha256": disk.source_sha256, "target_sha256": disk.target_sha256}
    return json.dumps(whole, indent=2) + "\n"
