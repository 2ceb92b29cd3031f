"""`snapferry lab`"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="A simulated vCenter with hosts and a simulated OpenNebula, for trying things out.")


@app.callback()
def _lab() -> None:
    """A simulated vCenter with hosts and a simulated OpenNebula, for trying things out."""


@app.command("up")
def up(
    file: Annotated[
        Path | None, typer.Option(metavar="LAB.YAML", help="What it holds; one small VM that writes, by default.")
    ] = (None),
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where its disks and endpoints.json lie.")] = Path("lab"),
) -> None:
    """Starts the lab and keeps it up until Ctrl-C.

    [bold]Example:[/] snapferry lab up --file lab.yaml
    """
    from snapferry.lab import LabConfig, run

    run(LabConfig.from_file(file) if file else LabConfig.small(), folder)
