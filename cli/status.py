"""`snapferry status`"""

from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.following import slug_of
from snapferry.cli.output import Json, duration, show, show_json, table
from snapferry.cli.reconcile import show_discrepancies
from snapferry.command_line import command_line

if TYPE_CHECKING:
    from snapferry.deployments import Gate
    from snapferry.reconcile import Discrepancy
    from snapferry.status import MigrationStatus


def command(
    vm: Annotated[str | None, typer.Argument(metavar="[VM]", help="One VM; all moves by default.")] = None,
    vcenter: Annotated[str, typer.Option(metavar="BLOCK", help="Prefect block that knows the source.")] = "vcenter",
    opennebula: Annotated[
        str, typer.Option(metavar="BLOCK", help="Prefect block that knows the target.")
    ] = "opennebula",
    json: Json = False,
) -> None:
    """Shows each move: where the VM is in service, its phase, what comes next, what to do.

    Read from the two ends themselves, not from Prefect; changes nothing. Names a run that died, and what
    [bold]snapferry reconcile[/] would repair. Ends with 1 where a VM isn't in service at exactly one end, unless a
    live run cuts it over.

    [bold]Example:[/] snapferry status web01
    """
    from snapferry.blocks import find_opennebula, find_vcenter
    from snapferry.status import problems, status

    with find_vcenter(vcenter).session() as source, find_opennebula(opennebula).client() as target:
        found = status(source, target, vm)
        wrong = problems(source, target, vm)
        begun = found if found or vm is None else status(source, target)
    gates = _gates(vm)
    if json:
        show_json({"migrations": found, "problems": wrong, "gates": gates})
    else:
        if not found:
            show(_nothing(vm, begun))
        _show(found, wrong, gates)
    if not all(one.safe for one in found) or any(one.urgent for one in wrong):
        raise typer.Exit(1)


def _gates(vm: str | None) -> "list[Gate]":
    """The gates that wait, where a Prefect is configured."""
    from snapferry.blocks import prefect_address
    from snapferry.deployments import waiting_gates

    waiting = waiting_gates() if prefect_address() else []
    return [one for one in waiting if vm is None or slug_of(vm) == slug_of(one.vm)]


def _nothing(vm: str | None, begun: "list[MigrationStatus]") -> str:
    if not begun:
        return "No VM is being moved." if vm is None else f"No move of {vm!r} has begun, nor of any other VM."
    return f"No move of {vm!r} has begun. Begun: {', '.join(sorted(one.vm for one in begun))}."


def _show(found: "list[MigrationStatus]", wrong: "list[Discrepancy]", gates: "list[Gate]") -> None:
    for one in found:
        warm = f", warm as of {duration(one.warm_age_seconds)} ago" if one.warm_age_seconds is not None else ""
        run = "none" if one.holder is None else one.holder.describe() + (": DEAD" if one.holder.dead else "")
        rows = [
            ("in service", one.service),
            ("phase", f"{one.phase.value}, {one.rounds} round(s){warm}"),
            ("target", f"template {one.template_id} ({one.target_name})"),
            ("run", run),
            ("our snapshots", ", ".join(one.snapshots) or "none"),
            ("next", one.next),
            ("to do", one.advice or "nothing"),
        ]
        show(table("", one.vm, rows=rows))
        if not one.safe:
            show("Not in service at exactly one end.", style="red")
    if wrong:
        show_discrepancies(wrong)
    for gate in gates:
        until = f" until {gate.expires:%Y-%m-%d %H:%M} UTC" if gate.expires else ""
        show(f"{gate.vm} waits at the gate{until}: {command_line('approve', gate.vm)}")
