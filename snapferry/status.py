"""In what state each move is, whether its source is safe, and what to do next."""

from datetime import UTC, datetime

from snapferry import opennebula, vsphere
from snapferry.plan import Frozen
from snapferry.record import MigrationRecord, Phase, find_records
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
    rounds: int
    last_round_at: datetime | None
    warm_age_seconds: float | None
    """Time since the last round's snapshot."""
    machine_id: int | None
    snapshots: tuple[str, ...]
    """Our snapshots that hang on the source now."""
    next: str
    """What happens by itself."""
    advice: str
    """What a person should do; empty where nothing is needed."""


def status(source: vsphere.Session | None, target: opennebula.Client, vm: str | None = None) -> list[MigrationStatus]:
    """The state of every move that the target knows, or of one VM's.

    Args:
        source: session with vCenter; without one, the source isn't looked at.
        target: client of OpenNebula.
        vm: name, inventory path or instance UUID; a name at the target will do.
    """
    records = [one for one in find_records(target) if one.phase != Phase.ABANDONED]
    if vm is not None:
        records = [one for one in records if vm in (one.vm_name, one.target_name) or one.vm_key.endswith(f"/{vm}")]
    running = [one for one in opennebula.list_machines(target) if opennebula.has_run(one)]
    machines = {str(one.attributes.get("SNAPFERRY_ID")): one.id for one in running}
    return [_status_of(one, _look(source, one), machines.get(one.migration_id), source is not None) for one in records]


def _look(source: vsphere.Session | None, record: MigrationRecord) -> SourceVm | None:
    if source is None:
        return None
    try:
        found = vsphere.read_vm(source, record.vm_moref)
    except vsphere.VmGone:
        return None
    return found if found.key == record.vm_key else None


def _status_of(record: MigrationRecord, vm: SourceVm | None, machine: int | None, asked: bool) -> MigrationStatus:
    last = record.rounds[-1].started if record.rounds else None
    running = vm is not None and vm.power == PowerState.ON
    source_state = ("running" if running else "off") if vm else ("gone" if asked else "not asked")
    happens, advice = _outlook(record, source_state, machine)
    return MigrationStatus(
        vm=vm.name if vm else record.vm_name,
        target_name=record.target_name,
        template_id=record.template_id,
        phase=record.phase,
        source_state=source_state,
        safe=running != (machine is not None) or not asked,
        rounds=len(record.rounds),
        last_round_at=last,
        warm_age_seconds=(datetime.now(UTC) - last).total_seconds() if last else None,
        machine_id=machine,
        snapshots=tuple(one.name for one in vsphere.our_snapshots(vm, record.migration_id)) if vm else (),
        next=happens,
        advice=advice,
    )


def _outlook(record: MigrationRecord, source_state: str, machine: int | None) -> tuple[str, str]:
    """What happens next, and what a person should do."""
    if record.phase == Phase.MIGRATED:
        return "Nothing; it is done.", "Delete the source when nobody needs it any more."
    if record.phase == Phase.CUTTING_OVER:
        intent = record.cutover.intent if record.cutover else "unknown"
        if machine is not None:
            return (
                f"The cutover stands at {intent!r}.",
                "If no run works on it, run `snapferry cutover`: it goes forward.",
            )
        return (
            f"The cutover stands at {intent!r}.",
            "If no run works on it, run `snapferry cutover`: it ends it or rolls back.",
        )
    if source_state == "gone":
        return "Nothing.", "The VM is no longer at the source. Find out why before you touch the images."
    if record.phase == Phase.ROLLED_BACK and source_state == "off":
        return "Nothing.", "The source is off after a roll-back: power it on in vCenter if it should run."
    if record.phase == Phase.ROLLED_BACK:
        return (
            "The next pre-sync compares or copies what may have diverged.",
            "Mend what the cutover failed of, then cut over.",
        )
    if record.phase == Phase.WARM:
        return "Scheduled pre-syncs keep it warm.", "Run `snapferry migrate` or answer its gate when the window opens."
    return "The base copy is made or taken up by the next pre-sync.", ""
