"""Ends the demo's processes when the demo ends in whatever way, unless it says `keep` first."""

import sys
from pathlib import Path

from snapferry.cli.demo.processes import end_all

if __name__ == "__main__":
    if sys.stdin.buffer.read() != b"keep":
        end_all(Path(sys.argv[1]))
