"""`snapferry assess`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.output import Json, duration, show, show_json, size, table

if TYPE_CHECKING:
    from snapferry.assess import Assessment

_Vms = Annotated[list[str] | None, typer.Argument(metavar="[VM]...", help="Names, inventory paths or UUIDs.")]


def command(
    vms: _Vms = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="A plan: its VM, and its target too.")] = None,
    vcenter: Annotated[str, typer.Option(metavar="BLOCK", help="Prefect block that knows the source.")] = "vcenter",
    json: Json = False,
) -> None:
    """Says what stands in the way of moving VMs, and how long it would take.

    Changes nothing. Without a VM, every VM of the inventory is looked at; the target is looked at where a plan is
    given. Ends with 3 where a VM can't be moved yet.

    [bold]Example:[/] snapferry assess web01 db01
    """
    assessments = _assess_plan(plan) if plan else _assess(vms or [], vcenter)
    if json:
        show_json(assessments)
    else:
        _show(assessments, target=plan is not None)
    if not all(one.ready for one in assessments):
        raise typer.Exit(3)


def _assess(vms: list[str], vcenter: str) -> "list[Assessment]":
    from snapferry.assess import assess
    from snapferry.blocks import find_vcenter
    from snapferry.vsphere import find_vm, list_vms

    with find_vcenter(vcenter).session() as source:
        found = [find_vm(source, one) for one in vms] if vms else list_vms(source)
        return [assess(source, one) for one in found]


def _assess_plan(file: Path) -> "list[Assessment]":
    from snapferry.assess import assess
    from snapferry.blocks import find_opennebula, find_vcenter
    from snapferry.plan import MigrationPlan
    from snapferry.vsphere import find_vm

    plan = MigrationPlan.load(file)
    with find_vcenter(plan.vcenter).session() as source, find_opennebula(plan.opennebula).client() as target:
        return [assess(source, find_vm(source, plan.vm), plan, target)]


def _show(assessments: "list[Assessment]", *, target: bool) -> None:
    rows = (
        (
            one.vm.path,
            "yes" if one.ready else "no",
            len(one.vm.disks),
            size(one.estimate.base_bytes),
            duration(one.estimate.base_seconds),
            duration(one.estimate.downtime_seconds),
        )
        for one in assessments
    )
    ready = "ready" if target else "source ready"
    show(table("VM", ready, ">disks", ">capacity", ">first copy at most", ">downtime", rows=rows))
    ways = [
        (one.vm.path, disk.label, one.routes[disk.key], one.changes[disk.key])
        for one in assessments
        for disk in one.vm.disks
    ]
    if ways:
        show(table("VM", "disk", "read by", "changes by", rows=ways))
    concerns = [(one.vm.path, each.severity, each.text, each.next_step) for one in assessments for each in one.concerns]
    if concerns:
        show(table("VM", "severity", "concern", "next step", rows=concerns))
    for note in dict.fromkeys(note for one in assessments for note in one.estimate.notes):
        show(note, style="dim")
    if not target:
        show("Only the source was looked at. With a plan, its networks and datastore too: snapferry assess --plan FILE")
