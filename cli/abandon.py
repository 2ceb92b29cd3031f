"""`snapferry abandon`"""

from typing import Annotated

import typer

from snapferry.cli.following import NoFollow, Vm, plan_of, start_and_follow
from snapferry.cli.naming import check_typed_name
from snapferry.cli.output import Json


def command(
    vm: Vm,
    name: Annotated[str | None, typer.Option(help="The VM's name again, for scripts: nothing is asked.")] = None,
    no_follow: NoFollow = False,
    json: Json = False,
) -> None:
    """Gives a migration up: removes our snapshots, images and template.

    The VM at vCenter goes on as it is. A VM that was migrated isn't touched.

    [bold]Example:[/] snapferry abandon web01
    """
    parameters = plan_of(vm)
    check_typed_name(str(parameters["plan"]["vm"]), name, "What was copied of it is deleted.")
    start_and_follow("abandon-vm/abandon", parameters, follow=not no_follow, json=json)
