"""`snapferry demo`: a running VM moves between two simulated clouds, through the real deployments."""

from pathlib import Path
from typing import Annotated

import typer

from snapferry.errors import PlanError


def command(
    seed: Annotated[int, typer.Option(min=0, help="Another seed: other sizes, content and workload.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Prefect and the lab up at the end.")] = False,
    at_gate: Annotated[bool, typer.Option("--at-gate", help="Leave the gate to you, and all up.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End what an earlier demo left up.")] = False,
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Prefect's home, disks and logs.")] = Path(".demo"),
    report: Annotated[Path, typer.Option(metavar="FILE", help="Where the report goes.")] = Path("demo-report.json"),
) -> None:
    """Moves a running VM between a simulated vCenter and a simulated OpenNebula.

    On loopback, with a Prefect server, a worker and the lab of its own; needs about 4 GB of disk and 2 minutes. Ends
    with 1 unless both disks are the same at both ends.

    [bold]Example:[/] snapferry demo --seed 7 --keep
    """
    from snapferry.cli.demo.processes import end_all

    folder = folder.resolve()
    ended = end_all(folder)
    if stop:
        typer.echo(f"{ended} process(es) of an earlier demo ended." if ended else "No demo is up.")
        return
    _clear(folder)

    from snapferry.cli.demo.story import tell_story

    if not tell_story(seed, folder, None if at_gate else report.resolve(), keep or at_gate):
        raise typer.Exit(1)


def _clear(folder: Path) -> None:
    """Makes the demo's folder anew; only one that a demo made is removed."""
    import shutil

    mark = folder / ".snapferry-demo"
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise PlanError(f"{folder} isn't a demo's folder.", "Name another one: --folder.")
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    mark.touch()
