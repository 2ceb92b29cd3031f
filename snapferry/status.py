"""In what state each move is, whether its source is safe, and what to do next."""

from datetime import UTC, datetime

from snapferry import opennebula, vsphere
from snapferry.holder import Holder, holder_of
from snapferry.opennebula.models import Machine
from snapferry.plan import Frozen
from snapferry.reconcile import Discrepancy, reconcile
from snapferry.record import MigrationRecord, Phase
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
    """Whether the VM is in service at exactly one end."""
    service: str
    """Where it is in service, in a sentence."""
    rounds: int
    last_round_at: datetime | None
    warm_age_seconds: float | None
    """Time since the last round's snapshot."""
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
    died = holder is not None and holder.dead and record.open
    happens, advice = _dead_run(record, holder) if holder and died else _outlook(record, source_state, holder)
    return MigrationStatus(
        vm=vm.name if vm else record.vm_name,
        target_name=record.target_name,
        template_id=record.template_id,
        phase=record.phase,
        source_state=source_state,
        safe=running != (machine is not None) or not asked,
        service=_service(record, source_state, machine, holder),
        rounds=len(record.rounds),
        last_round_at=last,
        warm_age_seconds=(datetime.now(UTC) - last).total_seconds() if last else None,
        machine_id=machine.id if machine else None,
        snapshots=tuple(one.name for one in vsphere.our_snapshots(vm, record.migration_id)) if vm else (),
        holder=holder,
        next=happens,
        advice=advice,
    )


def _service(record: MigrationRecord, source_state: str, machine: Machine | None, holder: Holder | None) -> str:
    """Where the VM is in service, and so whether its source is safe."""
    if source_state == "not asked":
        return "not known: vCenter wasn't asked"
    if machine and source_state == "running":
        return f"at BOTH ends: the source runs, and so does VM {machine.id} at OpenNebula"
    if machine:
        return f"at OpenNebula, as VM {machine.id} ({opennebula.state_name(machine)}); the source is {source_state}"
    if source_state == "running":
        return "at vCenter: the source runs, and nothing runs at OpenNebula"
    at_work = holder is not None and not holder.dead and record.phase == Phase.CUTTING_OVER
    return f"NOWHERE: the source is {source_state}" + (", for the cutover that is under way" if at_work else "")


def _dead_run(record: MigrationRecord, holder: Holder) -> tuple[str, str]:
    """What follows where a run died: the next one takes the VM over."""
    died = f"A run died: {holder.describe()}."
    name = record.vm_name
    if record.phase == Phase.CUTTING_OVER:
        return (
            f"{died} It was cutting over; the next scheduled pre-sync ends that.",
            f"Run `snapferry reconcile {name}` now: it puts the source back, or goes forward where the target has run.",
        )
    return (
        f"{died} The next scheduled pre-sync takes it up where it was.",
        f"Nothing is lost. Run `snapferry presync {name}` to go on now.",
    )


def _outlook(record: MigrationRecord, source_state: str, holder: Holder | None) -> tuple[str, str]:
    """What happens next, and what a person should do."""
    name = record.vm_name
    if record.phase == Phase.MIGRATED:
        return "Nothing; it is done.", "Delete the source when nobody needs it any more."
    if source_state == "gone":
        return "Nothing.", "The VM is no longer at the source. Find out why before you touch the images."
    if record.phase == Phase.CUTTING_OVER:
        intent = record.cutover.intent if record.cutover else "unknown"
        if holder:
            return f"{holder.describe()} cuts it over and stands at {intent!r}.", "Wait for it to end."
        return (
            f"The cutover stopped at {intent!r}, and no run works on it.",
            f"Run `snapferry reconcile {name}`: it puts the source back, or goes forward where the target has run.",
        )
    if holder:
        return f"{holder.describe()} works on it.", ""
    if record.phase == Phase.ROLLED_BACK and source_state == "off":
        return "Nothing.", "The source is off after a roll-back: power it on in vCenter if it should run."
    if record.phase == Phase.ROLLED_BACK:
        return (
            "The next pre-sync copies again what may have been written to at the target.",
            f"Mend what the cutover failed of (`snapferry cutover {name}` said it), then cut over again.",
        )
    if record.phase == Phase.WARM:
        return "Scheduled pre-syncs keep it warm.", f"Run `snapferry migrate {name}`, or answer its gate."
    return (
        "The next pre-sync makes the base copy, or takes it up where it stands.",
        f"Nothing by night; `snapferry presync {name}` starts it now.",
    )
