"""`snapferry cutover`"""

from snapferry.cli.following import NoFollow, Vm, plan_of, start_and_follow
from snapferry.cli.output import Json


def command(vm: Vm, no_follow: NoFollow = False, json: Json = False) -> None:
    """Cuts over a VM that pre-sync has copied; asks the same gate as migrate.

    A cutover that was interrupted is taken up: it goes forward, or puts the source back in service.

    [bold]Example:[/] snapferry cutover web01
    """
    start_and_follow("cutover-vm/cutover", plan_of(vm), follow=not no_follow, json=json)
