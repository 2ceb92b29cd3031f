"""The other ends: a web server, and a host that speaks NFC; both with TLS 1.3 and AES-256-GCM, each its own process."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from snapferry.lab.ca import CertificateAuthority
from snapferry.vsphere.models import NfcTicket

_NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 2;
{user}
events {{ worker_connections 64; }}
http {{
    access_log off; sendfile off; tcp_nodelay on;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
        output_buffers 2 1m;
        location / {{ root {root}; }}
    }}
}}
"""


class WebServer(NamedTuple):
    """Serves a folder over HTTPS on loopback."""

    port: int
    ca: Path

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}/{path}"


@contextmanager
def web_server(folder: Path, root: Path) -> Iterator[WebServer]:
    """nginx over a folder, until the end of the block.

    Args:
        folder: for what it writes itself.
        root: what it serves.
    """
    folder.mkdir(exist_ok=True)
    authority = CertificateAuthority(folder)
    certificate, port = authority.issue("localhost"), _free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        _NGINX.format(
            folder=folder,
            user=user,
            port=port,
            certificate=certificate.certificate_file,
            key=certificate.key_file,
            root=root,
        )
    )
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    with subprocess.Popen([nginx, "-p", folder, "-c", config], stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port, server)
            yield WebServer(port, authority.file)
        finally:
            server.terminate()


@contextmanager
def nfc_host(folder: Path, capacity_bytes: int) -> Iterator[NfcTicket]:
    """A host with a disk of random bytes in fragments of 64 KiB; any ticket that begins like the given one will do."""
    command = [sys.executable, "-m", "benchmarks.nfc_host", str(folder), str(capacity_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdin and host.stdout
        try:
            told = json.loads(host.stdout.readline())
            yield NfcTicket("127.0.0.1", told["port"], told["thumbprint"], "vpxa-nfc", "ticket")
        finally:
            host.stdin.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
