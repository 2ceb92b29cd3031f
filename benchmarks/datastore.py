"""A flat file of 1 GiB over TLS from nginx, read and thrown away."""

import ssl
from threading import Event

from pydantic import SecretStr

from benchmarks.disks import make_flat, read_all
from benchmarks.frame import Bench, Result, compared, run, seconds, warm
from benchmarks.servers import web_server
from snapferry.readers import DatastoreReader, HttpsFolder
from snapferry.transfer import Extents
from snapferry.vsphere.models import FolderAccess

BYTES = 1 << 30


def measure(bench: Bench) -> Result:
    """Speed against nbdkit's curl plugin and nbdcopy with four connections."""
    size = bench.bytes(BYTES)
    flat = make_flat(bench.folder, size, size)
    warm(flat)
    with web_server(bench.folder / "nginx", bench.folder) as server:
        tls = ssl.create_default_context(cafile=server.ca)
        access = FolderAccess("localhost", server.port, tls, "user", SecretStr("secret"), "dc", "san")
        login = ("user=user", "password=secret")
        nbdkit = ("nbdkit", "--exit-with-parent", "-r", "curl", f"url={server.url(flat.name)}", f"cainfo={server.ca}")
        command = ("nbdcopy", "--connections=4", "--", "[", *nbdkit, *login, "]", "null:")

        def ours() -> None:
            folder = HttpsFolder(access)
            reader = DatastoreReader.open(folder, "vm/disk.vmdk", size, Event())
            read_all(reader, Extents.whole(size))
            reader.close()
            folder.close()

        what = "flat file over TLS, speed against nbdkit-curl and nbdcopy"
        return compared(
            bench, "datastore", what, 1.4, lambda: seconds(ours), lambda: seconds(lambda: run(*command)), faster=True
        )
