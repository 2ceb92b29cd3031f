"""Debian's nginx as a datastore's server: TLS, Basic authentication, a port and a folder of its own."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from snapferry.lab.ca import Certificate

from ..conftest import wait_for

_CONFIG = """
daemon off;
user root;
worker_processes {workers};
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    log_format status $status;
    access_log {folder}/access.log status;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    limit_conn_zone $server_port zone=requests:1m;
    server {{
        listen 127.0.0.1:{port} ssl;
        listen 127.0.0.2:{port} ssl;
        ssl_certificate {certificate.certificate_file};
        ssl_certificate_key {certificate.key_file};
        auth_basic datastore;
        auth_basic_user_file {folder}/users;
        location /folder/vm/ {{ alias {files}/; }}
        {more}
    }}
}}
"""


class Nginx:
    """A server that ends with its context; it serves `files` as the folder `vm` to the user `user`, `secret`.

    Args:
        folder: its own.
        certificate: what it shows.
        port: a free one.
        more: further directives for its server.
        workers: its processes.
    """

    def __init__(
        self, folder: Path, files: Path, certificate: Certificate, port: int, more: str = "", workers: int = 1
    ) -> None:
        self._folder = folder
        self._running: subprocess.Popen[bytes] | None = None
        (folder / "users").write_text("user:{PLAIN}secret\n")
        fields = {
            "folder": folder,
            "files": files,
            "certificate": certificate,
            "port": port,
            "more": more,
            "workers": workers,
        }
        (folder / "nginx.conf").write_text(_CONFIG.format(**fields))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "nginx isn't installed: `.ci/install nginx`"
        first_log = str(self._folder / "start.log")
        command = [program, "-e", first_log, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        self._running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for(lambda: (self._folder / "pid").exists() or self._ended(), 10, "nginx")
        assert not self._ended(), Path(first_log).read_text() + (self._folder / "error.log").read_text()

    def stop(self) -> None:
        """Ends it at once, whatever it is sending."""
        if self._running:
            self._running.terminate()
            self._running.wait(10)
            self._running = None

    def statuses(self) -> list[int]:
        """Of every request that it has answered."""
        return [int(line) for line in (self._folder / "access.log").read_text().split()]

    def _ended(self) -> bool:
        return self._running is None or self._running.poll() is not None
