"""Coverage-guided fuzzing of one parser: `python -m tests.vmdk.fuzz cowd 600` (parser, seconds)."""

import importlib
import operator
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np

PEAK_MEMORY_MB = 200
SLOWEST_SECONDS = 10
ROUND_SECONDS = 60
"""atheris itself keeps some hundred bytes of a run: the fuzzing goes on in a new process before they are many."""
LONGEST_BYTES = 64 << 10
ROOMS = {"fastlz": "readers"}
"""Where a parser's target and corpus lie, unless here."""
_COMPARE = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)  # as dis.cmp_op has them


def spared(one_input: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, with comparisons of arrays not traced.

    atheris 3.0.0 never frees the result of a comparison that it traces, which for arrays soon fills the memory. What
    traces is put in its place by `atheris.Fuzz`, so it can only be replaced once that calls the target.
    """
    traced: Callable[..., object] | None = None

    def target(data: bytes) -> None:
        nonlocal traced
        if traced is None:
            traced, atheris._trace_cmp = atheris._trace_cmp, trace
        one_input(data)

    def trace(left: object, right: object, operation: int, *more: object) -> object:
        assert traced is not None
        if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
            return _COMPARE[operation](left, right)
        return traced(left, right, operation, *more)

    return target


def main() -> None:
    """Fuzzes a parser, in rounds; the first finding ends it with an error: an exception, too slow, too much memory."""
    parser, seconds = sys.argv[1], int(sys.argv[2])
    if seconds <= ROUND_SECONDS:
        fuzz(parser, seconds)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        subprocess.run([sys.executable, "-m", "tests.vmdk.fuzz", parser, str(ROUND_SECONDS)], check=True)


def fuzz(parser: str, seconds: int) -> None:
    """Runs libFuzzer in this process, and ends it; what is new to it is kept for the next round."""
    room = ROOMS.get(parser, "vmdk")
    with atheris.instrument_imports(include=["snapferry.vmdk", "snapferry.readers.fastlz"]):
        target = importlib.import_module(f"tests.{room}.fuzz_{parser}")
    found = Path("build/fuzz") / parser
    found.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST_BYTES,
        "rss_limit_mb": PEAK_MEMORY_MB,
        "timeout": SLOWEST_SECONDS,
        "artifact_prefix": f"{found}/finding-",
        "print_final_stats": 1,
        "verbosity": 1,
        "reload": 0,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    corpus = Path(__file__).parents[1] / room / "corpus" / parser
    new = found / "corpus"
    new.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *arguments, str(new), str(corpus)], spared(target.one_input))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
