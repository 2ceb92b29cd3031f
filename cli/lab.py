"""`snapferry lab`"""

import signal
from pathlib import Path
from typing import Annotated

import typer

from snapferry.cli.following import say

app = typer.Typer(help="A simulated vCenter with hosts and a simulated OpenNebula, for trying things out.")


@app.callback()
def _lab() -> None:
    """A simulated vCenter with hosts and a simulated OpenNebula, for trying things out."""


@app.command("up")
def up(
    file: Annotated[Path | None, typer.Option(metavar="LAB.YAML", help="What it holds; one small VM by default.")] = (
        None
    ),
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where its disks and endpoints.json lie.")] = Path("lab"),
) -> None:
    """Starts the lab and keeps it up until Ctrl-C.

    [bold]Example:[/] snapferry lab up --file lab.yaml
    """
    from snapferry.cli.demo.scene import small_lab
    from snapferry.lab import LabConfig
    from snapferry.lab import up as lab_up

    config = LabConfig.load(file) if file else small_lab()
    with lab_up(config, folder):
        say(f"The lab is up; addresses and logins are in {folder / 'endpoints.json'} (0600). Ctrl-C ends it.")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
