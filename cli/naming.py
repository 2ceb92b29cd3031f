"""A VM's name typed again, before something that can't be taken back."""

import shlex
import sys

import typer

from snapferry.errors import PlanError


def check_typed_name(wanted: str, given: str | None, why: str) -> str:
    """Asks for the VM's name unless it was given; returns it.

    Args:
        wanted: the name that has to be typed.
        given: what `--name` said.
        why: what follows from a yes, shown before the question.

    Raises:
        PlanError: another name, or nobody to ask.
    """
    if given is None:
        if not sys.stdin.isatty():
            raise PlanError("Nobody is there to type the VM's name.", f"Say it: --name {shlex.quote(wanted)}.")
        given = str(typer.prompt(f"{why} Type the VM's name ({wanted}) to go on", err=True))
    if given.strip() != wanted:
        raise PlanError(f"{given!r} isn't {wanted!r}.", "Type the VM's name exactly; nothing was done.")
    return wanted
