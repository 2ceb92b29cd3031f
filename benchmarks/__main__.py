"""Measures Snapferry against what others do, and prints a table: `python -m benchmarks --help`."""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import comparison, datastore, delta, empty_round, extents, memory, nfc, raw
from benchmarks.frame import Bench, Result

CASES: dict[str, Callable[[Bench], Result]] = {
    "raw": raw.measure,
    "datastore": datastore.measure,
    "nfc": nfc.measure,
    "delta-grains": delta.single_grains,
    "delta-areas": delta.small_areas,
    "extents": extents.measure,
    "memory": memory.measure,
    "comparison": comparison.apart,
    "comparison-one-disk": comparison.one_disk,
    "empty-round": empty_round.measure,
}


def main() -> None:
    """Runs the cases that are named, or all; a goal that is missed is no failure."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help="cases to run; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="of the amounts of data")
    parser.add_argument("--pairs", type=int, default=7, help="how often each side is measured")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="on the storage that is measured")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = []
    for name in options.case or CASES:
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory(dir=options.folder, prefix=f"{name}-") as folder:
            results.append(CASES[name](Bench(Path(folder).absolute(), options.scale, options.pairs)))
        show(results[-1:])
    show(results)
    cases = [one._asdict() | {"met": one.met} for one in results]
    kept = {"scale": options.scale, "load": os.getloadavg(), "cases": cases}
    path = options.folder / "results.json"
    path.write_text(json.dumps(kept, indent=2), encoding="utf-8")
    print(f"All measurements: {path}")


def show(results: list[Result]) -> None:
    """A line a case."""
    table = Table(box=None)
    for column in ("case", "what", "goal", "median", "from … to", "met"):
        table.add_column(column)
    for one in results:
        goal = f"{'≤' if one.at_most else '≥'} {one.limit:g} {one.unit}"
        spread = f"{one.low:.3g} … {one.high:.3g}"
        table.add_row(one.case, one.what, goal, f"{one.value:.3g} {one.unit}", spread, "yes" if one.met else "NO")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
