"""`snapferry migrate`"""

from snapferry.cli.following import NoFollow, Vm, slug_of, start_and_follow
from snapferry.cli.output import Json


def command(vm: Vm, no_follow: NoFollow = False, json: Json = False) -> None:
    """Moves a VM: copies while it runs, waits at the gate, cuts over.

    The run waits at its gate as long as the plan allows; see [bold]snapferry approve[/]. Ctrl-C ends the watching,
    not the run.

    [bold]Example:[/] snapferry migrate web01
    """
    start_and_follow(f"migrate-vm/migrate-{slug_of(vm)}", follow=not no_follow, json=json)
