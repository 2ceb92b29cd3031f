"""A simulated host as a process: forked from the control process, which has imported all that a host needs."""

from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from snapferry.lab.host.folder import FolderServer
from snapferry.lab.host.nfc import NfcServer
from snapferry.lab.host.rpc import serve
from snapferry.lab.host.service import HostService

NFC_MEMORY_BYTES = 96_000_000


class HostOptions(NamedTuple):
    """What a host is told when it starts."""

    folder: Path
    """The lab's, with `datastores/` in it."""
    unix_socket: Path
    """Where it serves the control process."""
    certificate_file: Path
    key_file: Path
    seed: int
    nfc_fastlz: bool = False
    """Compress what NFC sends, where it is asked for."""


class HostPorts(NamedTuple):
    """Where a host listens, on loopback."""

    nfc: int
    https: int


def run_host(parent: Connection, options: HostOptions) -> None:
    """Starts the servers, sends their ports, and ends when the parent closes its end of the connection."""
    service = HostService(options.folder, options.seed)
    files = options.certificate_file, options.key_file
    nfc = NfcServer(service, *files, NFC_MEMORY_BYTES, fastlz=options.nfc_fastlz)
    https = FolderServer(service, *files)
    rpc = serve(service, options.unix_socket)
    try:
        parent.send(HostPorts(nfc.port, https.port))
        parent.poll(None)  # readable once it is closed: nothing is ever sent
    finally:
        rpc.close()
        nfc.close()
        https.close()
        service.stop()
