"""The command `snapferry`. Its commands import what they need when they run, so that `--help` is quick."""

from snapferry.cli.app import main

__all__ = ["main"]
