"""`snapferry reconcile`"""

from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.output import Json, show, show_json, table

if TYPE_CHECKING:
    from snapferry.reconcile import Discrepancy


def command(
    vm: Annotated[str | None, typer.Argument(metavar="[VM]", help="One VM; everything by default.")] = None,
    vcenter: Annotated[str, typer.Option(metavar="BLOCK", help="Prefect block that knows the source.")] = "vcenter",
    opennebula: Annotated[
        str, typer.Option(metavar="BLOCK", help="Prefect block that knows the target.")
    ] = "opennebula",
    look: Annotated[bool, typer.Option("--look", help="Only say what is found; change nothing.")] = False,
    json: Json = False,
) -> None:
    """Compares both ends with the records, repairs what is safe, names what needs a person.

    Ends cutovers that died (the source goes on, or the target where its guest has run), and removes what dead runs
    left. What isn't provably ours, or is in use by a run, isn't touched. Ends with 3 where something needs a person,
    with 1 where that is urgent.

    [bold]Example:[/] snapferry reconcile web01
    """
    from snapferry.blocks import find_opennebula, find_vcenter
    from snapferry.reconcile import reconcile

    with find_vcenter(vcenter).session() as source, find_opennebula(opennebula).client() as target:
        found = reconcile(source, target, vm, repair=not look)
    if json:
        show_json([*found])
    elif found:
        show_discrepancies(found)
    else:
        show("Both ends are as the records say.")
    if any(one.urgent for one in found):
        raise typer.Exit(1)
    if any(one.needs for one in found):
        raise typer.Exit(3)


def show_discrepancies(found: "list[Discrepancy]") -> None:
    """A line each: what, where, and what was done or has to be."""
    rows = [
        (one.vm or "-", one.what, one.where, f"repaired: {one.repaired}" if one.repaired else one.needs)
        for one in sorted(found, key=lambda one: not one.urgent)
    ]
    show(table("VM", "found", "where", "done, or to do", rows=rows))
