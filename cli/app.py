"""Puts the commands together, and turns what they raise into messages and exit codes."""

import logging
import sys
from typing import Annotated

import typer

from snapferry import __version__
from snapferry.cli import (
    abandon,
    approve,
    assess,
    cutover,
    demo,
    deploy,
    doctor,
    lab,
    migrate,
    plan,
    presync,
    reconcile,
    status,
)
from snapferry.cli.output import show_error
from snapferry.errors import SnapferryError

_EPILOG = (
    "[bold]Exit codes[/]: 0 done · 1 something failed at either end · 2 the plan or the command line is wrong · "
    "3 refused: put something right first, nothing was changed · 5 the cutover was rolled back, the source is in "
    "service · 130 stopped."
)
app = typer.Typer(
    name="snapferry",
    help="Moves running VMs from VMware vCenter to OpenNebula/KVM with almost no downtime.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (assess, plan, deploy, presync, migrate, cutover, approve, status, reconcile, abandon, doctor, demo):
    app.command(command.__name__.rsplit(".", 1)[-1])(command.command)
app.add_typer(lab.app, name="lab")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Moves running VMs from VMware vCenter to OpenNebula/KVM with almost no downtime."""


def main() -> None:
    """Runs the command line; ends the process with the exit code that `--help` lists."""
    debug = "--debug" in sys.argv
    if not debug:  # Prefect warns at each end of a process that an event, such as a block's use, is still on its way
        logging.getLogger("EventsWorker").setLevel(logging.ERROR)
    try:
        app()
    except SnapferryError as error:
        show_error(error, debug)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        show_error(SnapferryError(f"{error}."), debug)
        sys.exit(1)
