"""What every command shares: tables and numbers for people, JSON for machines, errors for both."""

import json
import os
import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

    from snapferry.errors import SnapferryError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]


def show_json(value: "BaseModel | list[Any] | dict[str, Any]") -> None:
    """Prints a model, or a list or mapping of models, as JSON on stdout."""
    print(json.dumps(value, indent=2, default=lambda model: model.model_dump(mode="json")))


def show(thing: "str | Table", style: str | None = None) -> None:
    """Prints text or a table on stdout, just as it is: the name of a VM may look like markup."""
    from rich.console import Console

    Console(highlight=False, markup=False).print(thing, style=style)


def table(*columns: str, rows: Iterable[Iterable[object]], title: str | None = None) -> "Table":
    """A table for `show`; a column whose name starts with `>` is aligned to the right."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def size(count_bytes: float) -> str:
    """`1.5 GB`"""
    from rich.filesize import decimal

    return decimal(round(count_bytes))


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def show_error(error: "SnapferryError", debug: bool) -> None:
    """Prints cause and next step on stderr, in colour where it is a terminal; the traceback first with `debug`."""
    if debug:
        traceback.print_exception(error)
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    red, bold, end = ("\033[31m", "\033[1m", "\033[0m") if colour else ("", "", "")
    print(f"{red}Error:{end} {error.cause}", file=sys.stderr)
    if error.next_step:
        print(f"{bold}Next:{end} {error.next_step}", file=sys.stderr)
