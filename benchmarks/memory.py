"""How much memory the copy of a disk takes, whatever its size."""

import subprocess
import sys
from pathlib import Path

from benchmarks.disks import make_flat
from benchmarks.frame import Bench, Result, measured

CAPACITY_BYTES = 6 << 40
DATA_BYTES = 1 << 30
_CHILD = """
import re, sys
from pathlib import Path
from benchmarks.disks import copy, fresh_image, open_local
from snapferry.transfer import Extents
folder, capacity = Path(sys.argv[1]), int(sys.argv[2])
copy(open_local(folder, "disk.vmdk", capacity), fresh_image(folder / "image.raw", capacity), Extents.whole(capacity))
# not ru_maxrss, which begins with what the parent had
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))
"""


def measure(bench: Bench) -> Result:
    """The peak of the resident set, in MB, of a process that copies a 6 TiB disk with 1 GiB of data."""
    make_flat(bench.folder, CAPACITY_BYTES, bench.bytes(DATA_BYTES))
    root = Path(__file__).parent.parent

    def peak() -> float:
        command = [sys.executable, "-c", _CHILD, str(bench.folder), str(CAPACITY_BYTES)]
        done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True, timeout=1800)
        return int(done.stdout) * 1024 / 1e6

    return measured(bench, "memory", "peak RSS of the copy of a 6 TiB disk", 300, peak, "MB")
