"""Runs the command line inside this process."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from snapferry.cli import main


class Ran(NamedTuple):
    """What a command did."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def snapferry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `snapferry` with arguments; no login is set in the environment."""
    for name in ("SNAPFERRY_VCENTER_HOST", "SNAPFERRY_OPENNEBULA_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["snapferry", *arguments])
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Ran(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return run
