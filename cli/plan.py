"""`snapferry plan`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.following import say
from snapferry.command_line import command_line
from snapferry.errors import PlanError

if TYPE_CHECKING:
    from snapferry.opennebula.models import Datastore


def command(
    vm: Annotated[str, typer.Argument(metavar="VM", help="Name, inventory path or instance UUID.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; stdout.")] = None,
    datastore: Annotated[str | None, typer.Option(metavar="NAME", help="Image datastore; the one with most room.")] = (
        None
    ),
    vcenter: Annotated[str, typer.Option(metavar="BLOCK", help="Prefect block that knows the source.")] = "vcenter",
    opennebula: Annotated[
        str, typer.Option(metavar="BLOCK", help="Prefect block that knows the target.")
    ] = "opennebula",
    force: Annotated[bool, typer.Option("--force", help="Write over FILE.")] = False,
) -> None:
    """Writes a plan for a VM from both inventories, each field explained.

    [bold]Example:[/] snapferry plan web01 -o plans/web01.yaml
    """
    from snapferry.blocks import find_opennebula, find_vcenter
    from snapferry.cli.plan_text import plan_text
    from snapferry.opennebula import list_datastores, list_networks
    from snapferry.plan import MigrationPlan
    from snapferry.vsphere import find_vm

    with find_vcenter(vcenter).session() as source, find_opennebula(opennebula).client() as target:
        found = find_vm(source, vm)
        chosen = datastore or _roomiest(list_datastores(target))
        text = plan_text(found, list_networks(target), vm, chosen, vcenter, opennebula)
    MigrationPlan.from_yaml(text, "the new plan")  # a plan that can't be read back is a mistake of ours
    if output is None:
        print(text, end="")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise PlanError(f"{output} is there already.", "Name another file, or say --force.") from error
    say(f"Written: {output}. Read it, then: {command_line('deploy', str(output))}")


def _roomiest(datastores: "list[Datastore]") -> str:
    images = [one for one in datastores if one.kind == 0]
    if not images:
        raise PlanError("OpenNebula shows no image datastore.", "Give the user USE on one, or name it: --datastore.")
    return max(images, key=lambda one: one.free_mib).name
