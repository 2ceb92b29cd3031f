"""`snapferry deploy`"""

from pathlib import Path
from typing import Annotated

import typer

from snapferry.cli.output import Json, show, show_json, table
from snapferry.errors import PlanError

_Plans = Annotated[list[Path] | None, typer.Argument(metavar="[PLAN]...", help="Plans; plans/*.yaml by default.")]


def command(
    plans: _Plans = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove the deployments of all other plans.")] = False,
    dead_after: Annotated[
        int, typer.Option(metavar="SECONDS", help="A run that gives no sign of life for so long counts as dead.")
    ] = 180,
    json: Json = False,
) -> None:
    """Makes, per plan, the deployments presync-VM (nightly) and migrate-VM.

    Also makes the automation that marks the runs of a dead worker as crashed, so that the next ones start.
    Repeatable; run it again after a plan has changed.

    [bold]Example:[/] snapferry deploy plans/web01.yaml
    """
    from snapferry.deployments import deploy
    from snapferry.plan import MigrationPlan

    files = plans or sorted(Path("plans").glob("*.yaml"))
    if not files and not prune:
        raise PlanError("There is no plan in plans/.", "Name one, or write one: snapferry plan VM -o plans/VM.yaml")
    done = deploy([MigrationPlan.load(one) for one in files], prune, dead_after)
    if json:
        show_json([*done])
    else:
        show(table("deployment", "was", rows=[(one.name, one.action) for one in done]))
