"""An HTTPS server on loopback, one thread a connection."""

import logging
import socket
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_log = logging.getLogger(__name__)

IDLE_SECONDS = 1800.0
HANDSHAKE_SECONDS = 10.0


class Handler(BaseHTTPRequestHandler):
    """Answers requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = IDLE_SECONDS

    def reply(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Sends a whole reply."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def read_body(self, limit_bytes: int) -> bytes | None:
        """The request's body; None once a refusal has been sent."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > limit_bytes:
            self.close_connection = True
            self.reply(400, b"Content-Length is missing or too large\n", "text/plain")
            return None
        return self.rfile.read(int(length))

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


class HttpsServer:
    """Serves a Handler class on a free port of 127.0.0.1."""

    def __init__(self, handler: type[Handler], context: ssl.SSLContext, name: str) -> None:
        self._server = _Server(("127.0.0.1", 0), handler, context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name=name, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops listening; connections that are open die with the process."""
        if self._thread.is_alive():  # without it, shutdown would wait for ever
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[Handler], context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a slow handshake holds up nobody else."""
        request.settimeout(HANDSHAKE_SECONDS)
        try:
            wrapped = self._context.wrap_socket(request, server_side=True)
        except (OSError, ValueError) as error:
            _log.debug("handshake with %s failed: %s", client_address, error)
            return
        with wrapped:
            self.RequestHandlerClass(wrapped, client_address, self)  # type: ignore[arg-type]

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        _log.debug("connection of %s broke", client_address, exc_info=True)
