"""What stands in the way of a move, how each disk would be read, and how long it would take."""

from collections.abc import Iterator

from snapferry import opennebula, vsphere
from snapferry.changes import means_of, means_when_off, untracked
from snapferry.convergence import COPY_BYTES_PER_SECOND, Costs
from snapferry.doubt import old_host
from snapferry.errors import SnapferryError
from snapferry.opennebula.models import Network
from snapferry.plan import ChangesBy, Frozen, MigrationPlan
from snapferry.routes import closed, ways_to
from snapferry.vsphere import Concern
from snapferry.vsphere.models import SourceDisk, SourceVm


class Estimate(Frozen):
    """How long a move would take, with what it assumes."""

    base_bytes: int
    """The most that the first round copies: the disks' capacity. Blocks that were never written are left out."""
    base_seconds: float
    downtime_seconds: float
    parts: dict[str, float]
    notes: tuple[str, ...]


class Assessment(Frozen):
    """All that is known of a VM before its move."""

    vm: SourceVm
    concerns: tuple[Concern, ...]
    routes: dict[int, str]
    """Route to each disk's bytes and why, by device key."""
    changes: dict[int, str]
    """By what each disk's changes are found and why, by device key."""
    estimate: Estimate

    @property
    def ready(self) -> bool:
        """Whether nothing critical stands in the way."""
        return not any(one.severity == "critical" for one in self.concerns)


def assess(
    source: vsphere.Session,
    vm: SourceVm,
    plan: MigrationPlan | None = None,
    target: opennebula.Client | None = None,
) -> Assessment:
    """Looks at a VM; changes nothing.

    Args:
        source: session with vCenter.
        vm: the VM.
        plan: how it shall move; without one, only the source is looked at.
        target: client of OpenNebula, for networks and space.
    """
    reason = untracked(vm, plan)
    asked = plan is not None and plan.changes == ChangesBy.TRACKING
    concerns = list(vsphere.concerns(vm, tracked=asked or not reason))
    if missing := vsphere.missing_privileges(source, vm):
        concerns.append(
            _critical("privileges", f"The vCenter user lacks {', '.join(missing)}.", "Give its role these privileges.")
        )
    if plan and target:
        concerns += _target_concerns(vm, plan, target)
    routes = {disk.key: _route(disk, vm, plan) for disk in vm.disks}
    changes = {disk.key: str(means_of(disk, vm.power, reason, plan)) for disk in vm.disks}
    return Assessment(vm=vm, concerns=tuple(concerns), routes=routes, changes=changes, estimate=estimate(vm, plan))


def _route(disk: SourceDisk, vm: SourceVm, plan: MigrationPlan | None) -> str:
    """The route of a disk's first copy, why, and what is taken where it fails."""
    first, *others = ways_to(disk, vm.power, plan)
    text = str(first)
    if plan and plan.route and plan.route != first.route:
        text += f"; not by {plan.route}, as the plan asks, because {closed(disk, vm.power, plan.route, plan)}"
    return text + (f"; else by {' or '.join(one.route for one in others)}" if others else "")


def _target_concerns(vm: SourceVm, plan: MigrationPlan, target: opennebula.Client) -> list[Concern]:
    """What the plan needs at the target and doesn't find there; every problem, not only the first."""
    found: list[Concern] = []
    known: list[Network] = opennebula.list_networks(target)
    for nic in vm.nics:
        try:
            opennebula.map_network(known, plan.networks, nic.network)
        except SnapferryError as error:
            found.append(_critical("network", error.cause, error.next_step))
    try:
        opennebula.check_name(plan.target_name or vm.name)
    except SnapferryError as error:
        found.append(_critical("name", error.cause, error.next_step))
    try:
        datastore = opennebula.find_datastore(target, plan.image_datastore)
        opennebula.check_space(datastore, sum(disk.capacity_bytes for disk in vm.disks))
    except SnapferryError as error:
        found.append(_critical("datastore", error.cause, error.next_step))
    return found


def _critical(name: str, text: str, next_step: str) -> Concern:
    return Concern(id=name, severity="critical", text=text, next_step=next_step)


def estimate(vm: SourceVm, plan: MigrationPlan | None = None) -> Estimate:
    """How long the move of a VM would take, before anything of it was measured."""
    reason = untracked(vm, plan)
    total = sum(disk.capacity_bytes for disk in vm.disks)
    costs = Costs()
    notes = [
        f"{COPY_BYTES_PER_SECOND / 1e6:.0f} MB/s is assumed until the first round has measured it.",
        "The first round skips blocks that were never written, so it copies less than the capacity.",
        f"The downtime assumes {costs.shutdown:.0f} s for the shutdown and {costs.start:.0f} s for the start.",
    ]
    if not reason and not vm.change_tracking:
        notes.append("Change tracking is off and will be switched on: a snapshot is made and removed for it.")
    compared = [disk for disk in vm.disks if means_when_off(disk, reason, plan) == ChangesBy.COMPARE]
    last_changes = 5.0 + sum(disk.capacity_bytes for disk in compared) / COPY_BYTES_PER_SECOND
    notes += _notes_on_changes(vm, plan, reason) if reason else ()
    if not reason and (doubt := old_host(vm)):
        last_changes = total / COPY_BYTES_PER_SECOND
        notes.append(f"Every round, and the last changes too, compare the disks in full: {doubt}.")
    parts = {"shutdown": costs.shutdown, "last changes": last_changes, "morph": costs.morph, "start": costs.start}
    return Estimate(
        base_bytes=total,
        base_seconds=total / COPY_BYTES_PER_SECOND,
        downtime_seconds=sum(parts.values()),
        parts=parts,
        notes=tuple(notes),
    )


def _notes_on_changes(vm: SourceVm, plan: MigrationPlan | None, reason: str) -> Iterator[str]:
    """What it costs that change tracking isn't used for a `reason`, each once."""
    groups: dict[tuple[str, str], list[str]] = {}
    for disk in vm.disks:
        means = means_of(disk, vm.power, reason, plan)
        if means.by == ChangesBy.COMPARE:
            groups.setdefault(("Every round compares", f"in full: {means.why}."), []).append(disk.label)
        if means_when_off(disk, reason, plan) == ChangesBy.COMPARE:
            told = "The last changes of", "are compared in full while the VM is off."
        else:
            told = "Delta files tell the changes of", "for which a snapshot stays between rounds."
        groups.setdefault(told, []).append(disk.label)
    yield from (f"{begin} {', '.join(labels)} {end}" for (begin, end), labels in groups.items())
