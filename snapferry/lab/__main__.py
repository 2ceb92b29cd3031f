"""Runs a lab: `python -m snapferry.lab --help`."""

import argparse
import sys
import tempfile
from pathlib import Path

from snapferry.errors import SnapferryError
from snapferry.lab import LabConfig, run


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="snapferry.lab", description="Runs a simulated vCenter and OpenNebula.")
    parser.add_argument("--file", type=Path, help="what the lab holds (lab.yaml); a small one by default")
    parser.add_argument("--folder", type=Path, help="where its files go; a temporary folder by default")
    options = parser.parse_args()
    try:
        config = LabConfig.from_file(options.file) if options.file else LabConfig.small()
        if options.folder:
            run(config, options.folder)
        else:
            with tempfile.TemporaryDirectory(prefix="snapferry-lab-") as folder:
                run(config, Path(folder))
    except SnapferryError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
