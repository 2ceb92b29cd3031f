"""Coverage-guided fuzzing of one parser: `python -m tests.vmdk.fuzz cowd 600` (parser, seconds)."""

import importlib
import sys
from pathlib import Path

import atheris

PEAK_MEMORY_MB = 200
SLOWEST_SECONDS = 10
LONGEST_BYTES = 64 << 10


def main() -> None:
    """Runs libFuzzer, which ends with an error at the first finding: an exception, too slow, too much memory."""
    parser, seconds = sys.argv[1:]
    with atheris.instrument_imports(include=["snapferry.vmdk"]):
        target = importlib.import_module(f"tests.vmdk.fuzz_{parser}")
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
    corpus = Path(__file__).parent / "corpus" / parser
    new = found / "corpus"
    new.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *arguments, str(new), str(corpus)], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
