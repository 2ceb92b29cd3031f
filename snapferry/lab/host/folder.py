"""The host's HTTPS server: files of its datastores at `/folder`, whole or by range; at `/nfc` what leases export."""

import base64
import binascii
import contextlib
import re
import socket
import ssl
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from snapferry.lab.host.errors import HostError
from snapferry.lab.host.service import HostService

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK_BYTES = 1 << 20


class FolderServer:
    """Serves `/folder/<path>?dcPath=...&dsName=<datastore>` on a free port of 127.0.0.1 until `close`."""

    def __init__(self, service: HostService, cert: Path, key: Path) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(cert, key)
        self._server = _Server(service, tls)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="folder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, service: HostService, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service
        self._tls = tls

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Does the TLS handshake in the connection's own thread, so that a slow client holds up nobody."""
        request.settimeout(30)
        with contextlib.suppress(OSError), self._tls.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ESXi"
    server: _Server

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests aren't logged."""

    def _respond(self, with_body: bool) -> None:
        if self.path.startswith("/nfc/"):
            self.server.service.exports.serve(self, with_body)
            return
        if not self._authorized():
            self._fail(HTTPStatus.UNAUTHORIZED, ("WWW-Authenticate", 'Basic realm="VMware HTTP server"'))
            return
        url = urlsplit(self.path)
        store = parse_qs(url.query).get("dsName", [""])[0]
        if not url.path.startswith("/folder/") or not store:
            self._fail(HTTPStatus.NOT_FOUND)
            return
        try:
            path = self.server.service.file(store, unquote(url.path.removeprefix("/folder/")))
        except HostError as error:
            locked = error.kind == "locked"
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR if locked else HTTPStatus.NOT_FOUND)
            return
        self._send_file(path, with_body)

    def _authorized(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return self.server.service.authorized(user, password)

    def _send_file(self, path: Path, with_body: bool) -> None:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            start, end = 0, size
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            if asked:
                start = int(asked[1])
                end = min(int(asked[2]) + 1, size) if asked[2] else size
                if start >= end:
                    self._fail(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, ("Content-Range", f"bytes */{size}"))
                    return
            self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            file.seek(start)
            while with_body and start < end:
                data = file.read(min(_CHUNK_BYTES, end - start))
                if not data:
                    self.close_connection = True
                    return
                self.wfile.write(data)
                start += len(data)

    def _fail(self, status: HTTPStatus, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
