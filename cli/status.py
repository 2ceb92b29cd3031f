"""`snapferry status`"""

from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.output import Json, duration, show, show_json, table
from snapferry.cli.reconcile import show_discrepancies

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
    gates = _gates(vm)
    if json:
        show_json({"migrations": found, "problems": wrong, "gates": gates})
    else:
        _show(found, wrong, gates)
    if not all(one.safe for one in found) or any(one.urgent for one in wrong):
        raise typer.Exit(1)


def _gates(vm: str | None) -> "list[Gate]":
    """The gates that wait, where a Prefect is configured."""
    from prefect.settings import PREFECT_API_URL

    from snapferry.deployments import waiting_gates

    return [one for one in waiting_gates() if vm in (None, one.vm)] if PREFECT_API_URL.value() else []


def _show(found: "list[MigrationStatus]", wrong: "list[Discrepancy]", gates: "list[Gate]") -> None:
    if not found:
        show("No VM is being moved.")
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
        show(table("", one.vm, rows=rows), "" if one.safe else "[red]Not in service at exactly one end.[/]")
    if wrong:
        show_discrepancies(wrong)
    for gate in gates:
        until = f" until {gate.expires:%Y-%m-%d %H:%M} UTC" if gate.expires else ""
        show(f"{gate.vm} waits at the gate{until}: snapferry approve '{gate.vm}'")
