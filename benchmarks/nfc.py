"""The client's processor time for a GB over NFC, in fragments of 64 KiB, both layers encrypted."""

import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.disks import make_flat
from benchmarks.frame import Bench, Result, compared, run, warm
from benchmarks.servers import nfc_host, web_server

BYTES = 512 << 20
_CLIENT = """
import resource, sys
from uuid import uuid4
from benchmarks.disks import read_all
from snapferry.readers import NfcReader
from snapferry.transfer import Extents
from snapferry.vsphere.models import NfcTicket
port, thumbprint, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
reader = NfcReader(
    lambda: NfcTicket("127.0.0.1", port, thumbprint, "vpxa-nfc", f"ticket-{uuid4()}"), "[san1] a/a.vmdk", size
)
begun = resource.getrusage(resource.RUSAGE_SELF)
read_all(reader, Extents.whole(size))
ended = resource.getrusage(resource.RUSAGE_SELF)
reader.close()
print(ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime)
"""


def measure(bench: Bench) -> Result:
    """Against curl's for the same bytes with the same cipher, from nginx."""
    size, root = bench.bytes(BYTES), Path(__file__).parent.parent
    flat = make_flat(bench.folder, size, size)
    warm(flat)
    with web_server(bench.folder / "nginx", bench.folder) as server, nfc_host(bench.folder, size) as ticket:
        client = [sys.executable, "-c", _CLIENT, str(ticket.port), ticket.ssl_thumbprint, str(size)]
        curl = ("curl", "-sf", "-u", "user:secret", "--cacert", server.ca, "-o", "/dev/null", server.url(flat.name))

        def ours() -> float:
            done = subprocess.run(client, cwd=root, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
            return float(done.stdout) / size * 1e9

        def theirs() -> float:
            begun = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(*curl)
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            return (ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime) / size * 1e9

        what = "NFC in fragments of 64 KiB, CPU seconds a GB against curl's"
        return compared(bench, "nfc", what, 1.3, ours, theirs, measured_in="CPU s/GB")
