"""Brings both ends and the record together again, after whatever killed a run.

What is provably ours and that no run uses is repaired under the VM's lease; everything else is named, with what a
person has to do. Ours is what carries a record's own ids: a snapshot's moref or the migration's random id in its name,
an image's or machine's attribute with its own number, an address range's mark. A name alone is never enough.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from snapferry import opennebula, vsphere
from snapferry.command_line import command_line
from snapferry.cutover import end_attempt, under_way
from snapferry.errors import LeaseLost, Refused, RolledBack, SnapferryError
from snapferry.holder import Holder, holder_of
from snapferry.migration import Migration, leftover_snapshots
from snapferry.opennebula.models import Image, Machine, Template
from snapferry.plan import Frozen, MigrationPlan
from snapferry.record import MigrationRecord, Phase, round_of_template
from snapferry.roll_back import machines_of
from snapferry.survey import Survey, id_of, is_of, survey
from snapferry.vectors import Vector
from snapferry.vsphere.models import PowerState, Snapshot, SourceVm
from snapferry.watch import Watch

LONGEST_KEPT = timedelta(hours=72)
"""VMware advises against snapshots that stay longer."""


class Discrepancy(Frozen):
    """Something that isn't as it should be."""

    vm: str
    what: str
    where: str
    """`vCenter` or `OpenNebula`, and the object."""
    repaired: str = ""
    """What was done about it; empty where nothing was."""
    needs: str = ""
    """What a person should do; empty where it was repaired."""
    urgent: bool = False
    """Whether somebody has to look at once: a VM is in danger."""


class _Case(NamedTuple):
    """A discrepancy, and how it is mended where that is safe."""

    found: Discrepancy
    mend: Callable[[], object] | None = None
    done: str = ""


def reconcile(
    source: vsphere.Session,
    target: opennebula.Client,
    vm: str | None = None,
    watch: Watch | None = None,
    *,
    repair: bool = True,
) -> list[Discrepancy]:
    """Compares both ends and the records, repairs what is safe, and names the rest. Repeatable.

    Args:
        source: session with vCenter; records of other vCenters are left alone.
        target: client of OpenNebula.
        vm: one VM, by its name or instance UUID; by default all, and what belongs to no record, too.
        watch: is told each repair.
        repair: whether anything is changed.

    Raises:
        SnapferryError: an end can't be asked.
    """
    watch = watch or Watch()
    seen = survey(source, target)
    found = [_unreadable(one, error) for one, error in seen.unreadable if vm is None or vm == one.name]
    for records in seen.records_by_vm():
        if vm is None or any(is_of(one, vm) for one in records):
            found += _of_vm(source, target, seen, records, watch, repair)
    return found if vm is not None else found + _strays(target, seen, repair)


def reconcile_migration(
    migration: Migration, watch: Watch, *, repair: bool = True, resume: bool = False
) -> list[Discrepancy]:
    """The same for one VM whose record is read; nothing is looked at while a live run holds it.

    Args:
        migration: the VM.
        watch: is told each repair.
        repair: whether anything is changed.
        resume: leaves the snapshot of a killed round for the round that follows, whose journal is bound to it.

    Raises:
        SnapferryError: an end can't be asked.
    """
    if migration.record is None:
        return []
    holder = holder_of(opennebula.read_template(migration.target, migration.record.template_id))
    if holder and not holder.dead:
        return []
    found: list[Discrepancy] = []
    if under_way(migration.record):
        ended = _end_cutover(migration, watch) if repair else _dead_cutover(migration)
        found += [ended] if ended else []
        if not repair or (ended and not ended.repaired):
            return found
        migration.refresh()
        holder = None
    cases = list(_cases(migration, holder, resume))
    if repair and any(one.mend for one in cases):
        try:
            with migration.lease(watch.stop) as lease:
                migration.refresh()
                cases = list(_cases(migration, holder, resume))
                return found + [_mended(one, lease.check, watch) for one in cases]
        except LeaseLost:
            return found  # a run has begun to work on it: what is there is its own
    return found + [_named(one) for one in cases]


def _of_vm(
    source: vsphere.Session,
    target: opennebula.Client,
    seen: Survey,
    records: list[MigrationRecord],
    watch: Watch,
    repair: bool,
) -> list[Discrepancy]:
    """What is found of one VM: twins and a lost source are named, and nothing of that VM is touched."""
    under_way = [one for one in records if one.open]
    record = (under_way or records)[-1]
    if len(under_way) > 1:
        numbers = " and ".join(str(one.template_id) for one in under_way)
        return [
            Discrepancy(
                vm=record.vm_name,
                what="two templates carry a migration of this VM that is under way",
                where=f"OpenNebula, templates {numbers}",
                needs="Compare them (`onetemplate show ID`), then delete the wrong one: `onetemplate delete ID`.",
            )
        ]
    vm = seen.vm_of(record)
    if vm is None:
        return [_source_missing(source, record)] if record.open else []
    plan = MigrationPlan(vm=record.vm_name, image_datastore="")
    return reconcile_migration(Migration(plan, source, target, vm, record), watch, repair=repair)


def _end_cutover(migration: Migration, watch: Watch) -> Discrepancy | None:
    """Takes a cutover that died to its end: back, or forward where the target's guest has run."""
    found = _dead_cutover(migration)
    try:
        with migration.lease(watch.stop) as lease:
            migration.refresh()
            if not under_way(migration.planned) or not end_attempt(migration, lease, watch):
                return None  # somebody was quicker
            repaired = "it went forward: the VM is in service at the target"
    except RolledBack as error:
        repaired = error.cause
    except LeaseLost:
        return None
    except SnapferryError as error:
        return found.model_copy(update={"needs": str(error), "urgent": True})
    return found.model_copy(update={"repaired": repaired, "needs": "", "urgent": False})


def _dead_cutover(migration: Migration) -> Discrepancy:
    record = migration.planned
    intent = record.cutover.intent if record.cutover else "unknown"
    return Discrepancy(
        vm=migration.vm.name,
        what=f"a cutover died at {intent!r}; the source is {_power(migration.vm)}",
        where=f"OpenNebula, template {record.template_id}",
        needs=f"Run `{command_line('reconcile', record.vm_name)}`: the source goes on, or the target where its guest"
        " has run.",
        urgent=migration.vm.power != PowerState.ON,
    )


def _cases(migration: Migration, dead: Holder | None, resume: bool) -> Iterator[_Case]:
    """Everything that isn't right with one VM, read now."""
    record, vm = migration.planned, migration.vm
    machines = machines_of(migration)
    yield from _loud(record, vm, machines)
    if dead:
        found = _at(record, f"the run of {dead.describe()} died while it held the VM")
        yield _Case(found, lambda: None, "its lock is released")  # by whoever takes the lease for repairs
    for snapshot in vsphere.our_snapshots(vm):
        if snapshot.moref not in record.kept_snapshots and not (resume and snapshot.moref == record.round_snapshot):
            yield _snapshot_case(migration, snapshot)
    yield from _bases(record, vm, resume)
    for machine in machines:
        if opennebula.state_name(machine) == "HOLD" and record.open:
            yield _held_case(migration, machine)
    yield from _images(migration, resume)


def _loud(record: MigrationRecord, vm: SourceVm, machines: list[Machine]) -> Iterator[_Case]:
    """What may cost data while nobody looks."""
    if vm.power != PowerState.ON:
        return
    for machine in machines:
        if opennebula.state_name(machine) == "RUNNING":
            what = f"it runs at BOTH ends: here and as VM {machine.id} ({machine.name}) at OpenNebula"
            needs = (
                "Find out which one its users are on; stop the other at once (power off in vCenter, or"
                f" `onevm poweroff --hard {machine.id}`)."
            )
            yield _Case(Discrepancy(vm=vm.name, what=what, where=f"vCenter, {vm.path}", needs=needs, urgent=True))
            return
    if record.phase == Phase.MIGRATED:
        what = "it was migrated, and the source runs again"
        needs = "Power it off in vCenter before the VM at OpenNebula is started: both have the same addresses."
        yield _Case(Discrepancy(vm=vm.name, what=what, where=f"vCenter, {vm.path}", needs=needs, urgent=True))


def _snapshot_case(migration: Migration, snapshot: Snapshot) -> _Case:
    """A leftover of this migration goes; what only has a name like ours is named."""
    record, vm = migration.planned, migration.vm
    found = Discrepancy(vm=vm.name, what=f"the snapshot {snapshot.name} is left", where=f"vCenter, {vm.path}")
    if snapshot not in leftover_snapshots(vm, record):
        needs = f"No record here knows it. If no other Snapferry moves {vm.name}, remove it in vCenter."
        return _Case(found.model_copy(update={"needs": needs}))

    if snapshot.moref == record.round_snapshot:
        needs = f"`{command_line('presync', record.vm_name)}` goes on from it; `snapferry reconcile` removes it."
        found = found.model_copy(update={"needs": needs})

    def mend() -> None:
        vsphere.remove_snapshot(migration.source, vm, snapshot.moref)
        if snapshot.moref == record.round_snapshot:
            forgotten = round_of_template(record.round_number, "")
            opennebula.update_template(migration.target, record.template_id, forgotten)

    return _Case(found, mend, "it is removed")


def _bases(record: MigrationRecord, vm: SourceVm, resume: bool) -> Iterator[_Case]:
    """Snapshots that stay between rounds: one that is gone, and one that has stayed for too long."""
    if resume:
        return  # the round that follows looks itself
    known = {one.moref: one for one in vm.snapshots}
    for moref in sorted(record.kept_snapshots):
        if moref not in known:
            what = f"the snapshot {moref}, on which the copies stand, was removed"
            needs = f"Run `{command_line('presync', record.vm_name)}`, which compares the disks in full."
        elif datetime.now(UTC) - known[moref].created > LONGEST_KEPT:
            what = f"the snapshot {known[moref].name} stays between rounds since {known[moref].created:%m-%d %H:%M} UTC"
            needs = f"Run `{command_line('presync', record.vm_name)}`, which renews it, or `snapferry abandon`."
        else:
            continue
        yield _Case(Discrepancy(vm=vm.name, what=what, where=f"vCenter, {vm.path}", needs=needs))


def _held_case(migration: Migration, machine: Machine) -> _Case:
    found = Discrepancy(
        vm=migration.vm.name,
        what=f"the machine {machine.id} waits on hold and never ran",
        where=f"OpenNebula, VM {machine.id}",
    )
    return _Case(found, lambda: opennebula.terminate_hard(migration.target, machine.id), "it is terminated")


def _images(migration: Migration, resume: bool) -> Iterator[_Case]:
    """What is wrong with template and images; all of it needs a person, since images are data."""
    record, vm = migration.planned, migration.vm
    if record.phase == Phase.PLANNED:
        if not resume:  # else the preparation that follows finishes it
            needs = f"Run `{command_line('presync', record.vm_name)}`, which finishes it, or `snapferry abandon`."
            yield _Case(
                _at(record, "the template is half made: a preparation died").model_copy(update={"needs": needs})
            )
        return
    if not record.open:
        return
    for image in opennebula.list_images(migration.target):
        if id_of(image.attributes) == record.migration_id and _edited(image, record):
            needs = "Restore its SNAPFERRY attributes, or run `snapferry abandon` and start again."
            found = _at(record, f"the record on image {image.id} ({image.name}) was edited: it names another VM")
            yield _Case(found.model_copy(update={"needs": needs}))
    known = {one.disk_uuid for one in record.disks}
    lost = [disk.label for disk in vm.disks if disk.backing_uuid not in known]
    try:
        record.check_disks(vm.disks)
    except Refused as error:
        cause = f"no image holds {', '.join(lost)}: deleted at OpenNebula, or new at vCenter" if lost else error.cause
        yield _Case(_at(record, cause).model_copy(update={"needs": error.next_step}))


def _edited(image: Image, record: MigrationRecord) -> bool:
    vector = Vector.of(image.attributes, "SNAPFERRY")
    return vector is not None and vector.get("VM_KEY") != record.vm_key


def _strays(target: opennebula.Client, seen: Survey, repair: bool) -> list[Discrepancy]:
    """What belongs to no record."""
    cases: list[_Case] = [_orphan_case(image) for image in seen.orphans()]
    for mark, where in seen.stray_ranges():
        found = Discrepancy(vm="", what=f"address range {where} is left of the migration {mark}", where="OpenNebula")
        cases.append(_Case(found, partial(opennebula.remove_addresses, target, mark), "it is removed"))
    for vm, snapshot in seen.stray_snapshots():
        cases.append(_stray_snapshot(vm, snapshot))
    return [_mended(one, lambda: None, Watch()) if repair else _named(one) for one in cases]


def _stray_snapshot(vm: SourceVm, snapshot: Snapshot) -> _Case:
    needs = f"If no other Snapferry moves {vm.name} to another OpenNebula, remove it in vCenter."
    what = f"the snapshot {snapshot.name} has our name, and no record here knows the VM"
    return _Case(Discrepancy(vm=vm.name, what=what, where=f"vCenter, {vm.path}", needs=needs))


def _orphan_case(image: Image) -> _Case:
    """Images are data, and without a template no lease keeps a run out: a person says whether it may go."""
    vector = Vector.of(image.attributes, "SNAPFERRY") or Vector({})
    what = f"image {image.id} ({image.name}) belongs to the migration {vector.get('ID')}, whose template is gone"
    needs = f"If nobody needs its copy of the disk: `oneimage delete {image.id}`."
    return _Case(Discrepancy(vm="", what=what, where=f"OpenNebula, image {image.id}", needs=needs))


def _unreadable(template: Template, error: SnapferryError) -> Discrepancy:
    where = f"OpenNebula, template {template.id} ({template.name})"
    return Discrepancy(vm=template.name, what=error.cause.rstrip("."), where=where, needs=error.next_step)


def _source_missing(source: vsphere.Session, record: MigrationRecord) -> Discrepancy:
    """The VM of a migration that is under way can't be found as the record has it."""
    images = " ".join(str(one.image_id) for one in record.disks)
    needs = (
        "Find out why. If it is gone on purpose, its copies are worth nothing to a migration any more:"
        f" `oneimage delete {images}`, `onetemplate delete {record.template_id}`."
    )
    try:
        other = vsphere.read_vm(source, record.vm_moref)
        what = f"{record.vm_moref} in vCenter is {other.name}, another VM: the record was edited, or the VM made anew"
    except vsphere.VmGone:
        what = f"vCenter no longer has the VM as {record.vm_moref}, or this user may not see it"
    except SnapferryError as error:  # inaccessible for now, which is no reason to give anything up
        what, needs = error.cause.rstrip("."), error.next_step
    return _at(record, what).model_copy(update={"needs": needs})


def _at(record: MigrationRecord, what: str) -> Discrepancy:
    where = f"OpenNebula, template {record.template_id} ({record.target_name})"
    return Discrepancy(vm=record.vm_name, what=what, where=where)


def _mended(case: _Case, check: Callable[[], None], watch: Watch) -> Discrepancy:
    """Repairs what can be; a repair that fails is named with its reason, and the others go on."""
    if case.mend is None:
        return case.found
    watch.step("reconcile", case.found.what)
    try:
        check()
        case.mend()
    except LeaseLost:
        raise
    except SnapferryError as error:
        return case.found.model_copy(update={"needs": str(error)})
    return case.found.model_copy(update={"repaired": case.done, "needs": ""})


def _named(case: _Case) -> Discrepancy:
    """Without repair, what could be mended needs a reconcile, unless it says what else will do."""
    if case.mend is None or case.found.needs:
        return case.found
    again = command_line("reconcile", *filter(None, [case.found.vm]))
    return case.found.model_copy(update={"needs": f"Run `{again}`."})


def _power(vm: SourceVm) -> str:
    return {PowerState.ON: "running", PowerState.OFF: "off"}.get(vm.power, vm.power.value)
