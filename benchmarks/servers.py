"""The other ends: a web server, and a host that speaks NFC; both with TLS 1.3 and AES-256-GCM, each its own process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from snapferry.lab.ca import CertificateAuthority
from snapferry.vsphere.models import NfcTicket
from tests.conftest import free_port
from tests.readers.nginx import Nginx

_FAST = "ssl_protocols TLSv1.3; output_buffers 2 1m; access_log off;"


class WebServer(NamedTuple):
    """Serves a folder over HTTPS on loopback, to the user `user` with the password `secret`."""

    port: int
    ca: Path

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}/folder/vm/{path}"


@contextmanager
def web_server(folder: Path, files: Path) -> Iterator[WebServer]:
    """nginx over a folder, until the end of the block.

    Args:
        folder: for what it writes itself; it is made.
        files: what it serves.
    """
    folder.mkdir()
    authority, port = CertificateAuthority(folder), free_port()
    with Nginx(folder, files, authority.issue("localhost"), port, _FAST, workers=2):
        yield WebServer(port, authority.file)


@contextmanager
def nfc_host(folder: Path, capacity_bytes: int) -> Iterator[NfcTicket]:
    """A host with a disk of random bytes in fragments of 64 KiB; it takes any ticket."""
    command = [sys.executable, "-m", "benchmarks.nfc_host", str(folder), str(capacity_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdin and host.stdout
        try:
            told = json.loads(host.stdout.readline())
            yield NfcTicket("127.0.0.1", told["port"], told["thumbprint"], "vpxa-nfc", "ticket")
        finally:
            host.stdin.close()
