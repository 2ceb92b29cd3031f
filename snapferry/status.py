"""In what state each move is, whether its source is safe, and what to do next."""

from datetime import UTC, datetime

from snapferry import opennebula, vsphere
from snapferry.command_line import command_line
from snapferry.errors import Refused
from snapferry.holder import Holder, holder_of
from snapferry.opennebula.models import Machine
from snapferry.plan import Frozen
from snapferry.reconcile import Discrepancy, reconcile
from snapferry.record import BaseState, MigrationRecord, Phase
from snapferry.survey import is_of, read_records
from snapferry.vsphere.models import PowerState, SourceVm


class MigrationStatus(Frozen):
    """One move, as an operator wants to see it at night."""

    vm: str
    target_name: str
    template_id: int
    phase: Phase
    source_state: str
    """`running`, `off`, `gone` or `not asked`."""
    safe: bool
    """Whether the VM is in service at exactly one end, or a live run cuts it over."""
    service: str
    """Where it is in service, in a sentence."""
    rounds: int
    last_round_at: datetime | None
    warm_age_seconds: float | None
    """Time since the last round's snapshot; None where not every image is warm."""
    machine_id: int | None
    snapshots: tuple[str, ...]
    """Our snapshots that hang on the source now."""
    holder: Holder | None
    """The run that holds the VM, alive or dead."""
    next: str
    """What happens by itself."""
    advice: str
    """What a person should do; empty where nothing is needed."""


def status(source: vsphere.Session | None, target: opennebula.Client, vm: str | None = None) -> list[MigrationStatus]:
    """The state of every move that the target knows, or of one VM's; a record that can't be read is left out.

    Args:
        source: session with vCenter; without one, the source isn't looked at.
        target: client of OpenNebula.
        vm: name, inventory path or instance UUID; a name at the target will do.
    """
    templates = {one.id: one for one in opennebula.list_templates(target)}
    records, _ = read_records(list(templates.values()), opennebula.list_images(target))
    wanted = [one for one in records if one.phase != Phase.ABANDONED and (vm is None or is_of(one, vm))]
    running = [one for one in opennebula.list_machines(target) if opennebula.has_run(one)]
    machines = {str(one.attributes.get("SNAPFERRY_ID")): one for one in running}
    return [
        _status_of(
            one, _look(source, one), machines.get(one.migration_id), holder_of(templates[one.template_id]), bool(source)
        )
        for one in wanted
    ]


def problems(source: vsphere.Session, target: opennebula.Client, vm: str | None = None) -> list[Discrepancy]:
    """What `snapferry reconcile` would repair or name; nothing is changed."""
    return reconcile(source, target, vm, repair=False)


def _look(source: vsphere.Session | None, record: MigrationRecord) -> SourceVm | None:
    if source is None:
        return None
    try:
        found = vsphere.read_vm(source, record.vm_moref)
    except vsphere.VmGone:
        return None
    return found if found.key == record.vm_key else None


def _status_of(
    record: MigrationRecord, vm: SourceVm | None, machine: Machine | None, holder: Holder | None, asked: bool
) -> MigrationStatus:
    last = record.rounds[-1].started if record.rounds else None
    running = vm is not None and vm.power == PowerState.ON
    source_state = ("running" if running else "off") if vm else ("gone" if asked else "not asked")
    warm = bool(record.disks) and all(one.state == BaseState.WARM for one in record.disks)
    happens, advice = _outlook(record, vm, source_state, machine, holder)
    return MigrationStatus(
        vm=vm.name if vm else record.vm_name,
        target_name=record.target_name,
        template_id=record.template_id,
        phase=record.phase,
        source_state=source_state,
        safe=not asked
        or running != (machine is not None)
        or _is_cutting_over(record, holder)
        or _only_template(record),
        service=_service(record, source_state, machine, holder),
        rounds=len(record.rounds),
        last_round_at=last,
        warm_age_seconds=(datetime.now(UTC) - last).total_seconds() if last and warm else None,
        machine_id=machine.id if machine else None,
        snapshots=tuple(one.name for one in vsphere.our_snapshots(vm, record.migration_id)) if vm else (),
        holder=holder,
        next=happens,
        advice=advice,
    )


def _is_cutting_over(record: MigrationRecord, holder: Holder | None) -> bool:
    return record.phase == Phase.CUTTING_OVER and holder is not None and not holder.dead


def _rests(machine: Machine) -> bool:
    """Whether it doesn't run, and waits for somebody to resume it."""
    return opennebula.is_resting(opennebula.state_of(machine))


def _only_template(record: MigrationRecord) -> bool:
    """Whether the plan wanted a template at the target, and no machine."""
    return record.phase == Phase.MIGRATED and record.cutover is not None and record.cutover.machine_id is None


def _service(record: MigrationRecord, source_state: str, machine: Machine | None, holder: Holder | None) -> str:
    """Where the VM is in service, and so whether its source is safe."""
    if source_state == "not asked":
        return "not known: vCenter wasn't asked"
    state = opennebula.state_name(machine) if machine else ""
    if machine and source_state == "running":
        if not _rests(machine):
            return f"at BOTH ends: the source runs, and so does VM {machine.id} at OpenNebula"
        return f"at vCenter, though it was migrated: the source runs, and VM {machine.id} at OpenNebula is {state}"
    if machine:
        return f"at OpenNebula, as VM {machine.id}, which is {state}; the source is {source_state}"
    if source_state == "running":
        return "at vCenter: the source runs, and nothing runs at OpenNebula"
    if _is_cutting_over(record, holder):
        return f"nowhere for now: the source is {source_state}, for the cutover that is under way"
    if _only_template(record):
        return f"at OpenNebula, once somebody instantiates template {record.template_id}; the source is {source_state}"
    return f"NOWHERE: the source is {source_state}, and nothing runs at OpenNebula"


def _outlook(
    record: MigrationRecord, vm: SourceVm | None, source_state: str, machine: Machine | None, holder: Holder | None
) -> tuple[str, str]:
    """What happens next, and what a person should do."""
    if machine and source_state == "running":
        if _rests(machine):
            return (
                "Nothing by itself; users write to the source again, which is older.",
                f"Power the source off in vCenter before VM {machine.id} is started: both have the same addresses.",
            )
        return (
            "Nothing by itself; both have the same addresses, and what users write is split between them.",
            "Find out which one they are on and stop the other at once: power the source off in vCenter, or"
            f" `onevm poweroff --hard {machine.id}`.",
        )
    if record.phase == Phase.MIGRATED:
        return _migrated(record, source_state, machine)
    if source_state == "gone":
        return "Nothing.", "The VM is no longer at the source. Find out why before you touch the images."
    if record.phase == Phase.CUTTING_OVER:
        return _cutting_over(record, machine, holder)
    if holder and holder.dead:
        return (
            f"A run died: {holder.describe()}. The next scheduled pre-sync takes it up where it was.",
            f"Nothing is lost. Run `{command_line('presync', record.vm_name)}` to go on now.",
        )
    if holder:
        return f"{holder.describe()} works on it.", ""
    return _resting(record, vm, source_state)


def _migrated(record: MigrationRecord, source_state: str, machine: Machine | None) -> tuple[str, str]:
    if machine and not _rests(machine):
        return "Nothing; it is done.", "Delete the source when nobody needs it any more."
    if machine:
        return "Nothing; it is done.", f"If it should run: `onevm resume {machine.id}`. Never the source: it is older."
    if _only_template(record):
        return "Nothing; it is done.", f"Start it when it is wanted: `onetemplate instantiate {record.template_id}`."
    if source_state == "running":
        return "Nothing.", "It was migrated, and the source runs again alone: find out who went back, and why."
    return (
        "Nothing.",
        "Its VM at OpenNebula is gone. Find out who deleted it, and keep the source until you know: it has the data as"
        " they were at the cutover.",
    )


def _cutting_over(record: MigrationRecord, machine: Machine | None, holder: Holder | None) -> tuple[str, str]:
    intent = record.cutover.intent if record.cutover else "unknown"
    if holder and not holder.dead:
        return f"{holder.describe()} cuts it over and stands at {intent!r}.", "Wait for it to end."
    stopped = f"A run died: {holder.describe()}." if holder else "No run works on it."
    if machine:
        ends = "the VM stays at OpenNebula, and the source is marked. Don't power the source on."
    else:
        ends = "it powers the source on again, whose disks are as they were."
    return (
        f"{stopped} Its cutover stopped at {intent!r}; the next scheduled pre-sync ends that.",
        f"Run `{command_line('reconcile', record.vm_name)}` now: {ends}",
    )


def _resting(record: MigrationRecord, vm: SourceVm | None, source_state: str) -> tuple[str, str]:
    """Where no run works on it, and no cutover is under way."""
    name = record.vm_name
    if vm is not None and record.phase != Phase.PLANNED:
        try:
            record.check_disks(vm.disks)
        except Refused as error:
            return f"Each round is refused: {error.cause}", error.next_step
    if source_state == "off":
        return "Rounds go on all the same.", "No cutover switched it off. If it should run, power it on in vCenter."
    if record.phase == Phase.ROLLED_BACK:
        return (
            f"A cutover failed and was rolled back: {record.rolled_back_cause} The next pre-sync copies again what may"
            " have been written to at the target.",
            f"Mend that cause, then `{command_line('migrate', name)}`.",
        )
    if record.phase == Phase.WARM:
        stays = " A snapshot stays between them: delta files tell what changed." if record.kept_snapshots else ""
        advice = f"Run `{command_line('migrate', name)}`, or answer its gate."
        return f"Scheduled pre-syncs keep it warm.{stays}", advice
    return (
        "The next pre-sync makes the base copy, or takes it up where it stands.",
        f"Nothing by night; `{command_line('presync', name)}` starts it now.",
    )
