"""`snapferry presync`"""

from snapferry.cli.following import NoFollow, Vm, slug_of, start_and_follow
from snapferry.cli.output import Json


def command(vm: Vm, no_follow: NoFollow = False, json: Json = False) -> None:
    """Copies what changed since the last time, while the VM runs.

    The first run makes an image per disk and a template at the target. Ctrl-C ends the watching, not the run.

    [bold]Example:[/] snapferry presync web01
    """
    start_and_follow(f"presync-vm/presync-{slug_of(vm)}", follow=not no_follow, json=json)
