"""`snapferry status`"""

from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.output import Json, duration, show, show_json, table

if TYPE_CHECKING:
    from snapferry.deployments import Gate
    from snapferry.status import MigrationStatus


def command(
    vm: Annotated[str | None, typer.Argument(metavar="[VM]", help="One VM; all moves by default.")] = None,
    vcenter: Annotated[str, typer.Option(metavar="BLOCK", help="Prefect block that knows the source.")] = "vcenter",
    opennebula: Annotated[
        str, typer.Option(metavar="BLOCK", help="Prefect block that knows the target.")
    ] = "opennebula",
    json: Json = False,
) -> None:
    """Shows each move: its phase, whether the VM is in service, what comes next.

    Read from the two ends themselves, not from Prefect. Ends with 1 where a VM isn't in service at exactly one end.

    [bold]Example:[/] snapferry status web01
    """
    from snapferry.blocks import find_opennebula, find_vcenter
    from snapferry.status import status

    with find_vcenter(vcenter).session() as source, find_opennebula(opennebula).client() as target:
        found = status(source, target, vm)
    gates = _gates(vm)
    if json:
        show_json({"migrations": found, "gates": gates})
    else:
        _show(found, gates)
    if not all(one.safe for one in found):
        raise typer.Exit(1)


def _gates(vm: str | None) -> "list[Gate]":
    """The gates that wait, where a Prefect is configured."""
    from prefect.settings import PREFECT_API_URL

    from snapferry.deployments import waiting_gates

    return [one for one in waiting_gates() if vm in (None, one.vm)] if PREFECT_API_URL.value() else []


def _show(found: "list[MigrationStatus]", gates: "list[Gate]") -> None:
    if not found:
        show("No VM is being moved.")
    for one in found:
        warm = f", warm as of {duration(one.warm_age_seconds)} ago" if one.warm_age_seconds is not None else ""
        machine = f"VM {one.machine_id}" if one.machine_id is not None else f"template {one.template_id}"
        safe = "in service" if one.safe else "[red]not in service at exactly one end[/]"
        rows = [
            ("phase", f"{one.phase.value}, {one.rounds} round(s){warm}"),
            ("source", one.source_state),
            ("target", f"{machine} ({one.target_name})"),
            ("our snapshots", ", ".join(one.snapshots) or "none"),
            ("next", one.next),
            ("to do", one.advice or "nothing"),
        ]
        show(table("", one.vm, rows=rows), safe)
    for gate in gates:
        until = f" until {gate.expires:%Y-%m-%d %H:%M} UTC" if gate.expires else ""
        show(f"{gate.vm} waits at the gate{until}: snapferry approve '{gate.vm}'")
