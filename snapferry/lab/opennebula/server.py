"""HTTPS: one POST to /RPC2 is one call; failures come with status 200, too."""

import logging
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from ssl import SSLContext
from threading import Event, Thread
from typing import Any

from snapferry.lab.opennebula import (
    datastores,
    hosts,
    hotplug,
    images,
    machines,
    networks,
    system,
    templates,
    users,
    wire,
)
from snapferry.lab.opennebula.access import Call, authenticate
from snapferry.lab.opennebula.errors import CallFault, Code, OneError
from snapferry.lab.opennebula.registry import Methods
from snapferry.lab.opennebula.spoil import spoil
from snapferry.lab.opennebula.world import World

_log = logging.getLogger(__name__)
_MOST_BYTES = 256 << 20
_IDLE_SECONDS = 30

METHODS: Methods = (
    datastores.METHODS
    | hosts.METHODS
    | hotplug.METHODS
    | images.METHODS
    | machines.METHODS
    | networks.METHODS
    | system.METHODS
    | templates.METHODS
    | users.METHODS
)


class Cut(Exception):
    """The connection ends without an answer."""


class Server(ThreadingHTTPServer):
    """Answers on 127.0.0.1 at a free port; the TLS handshake is done in each connection's own thread."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, world: World, context: SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.world = world
        self.ended = Event()
        self.calls: Counter[str] = Counter()
        self._requests = count(1)
        self._thread = Thread(target=self.serve_forever, args=(0.05,), name="one-https", daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or that doesn't trust the certificate, is no news here."""
        _log.debug("connection of %s ended", client_address, exc_info=True)

    def answer(self, body: bytes) -> bytes:
        """Raises Cut where a fault wants the connection cut."""
        try:
            request = wire.parse(body)
            name = request.method.removeprefix("one.")
            method = METHODS.get(name) if request.method.startswith("one.") else None
            if method is None:
                raise CallFault(-506, f"Method '{request.method}' not defined")
            if not request.parameters or not isinstance(request.parameters[0], str):
                raise CallFault(-501, "Not enough parameters")
            parameters = method.check(request.parameters[1:])
        except CallFault as error:
            return wire.fault(error)
        self.calls[name] += 1
        self._strike_before(name)
        try:
            with self.world.lock:
                user = authenticate(self.world, request.parameters[0])
                if user is None:
                    raise OneError(Code.AUTHENTICATION, "User couldn't be authenticated, aborting call.")
                spoil(self.world, name)
                self._refuse(name)
                given = method.run(Call(self.world, user, next(self._requests)), *parameters)
        except OneError as error:
            return wire.failure(request.method, error)
        if self.world.faults.strikes("drop_answer", name) is not None:
            raise Cut
        return wire.success(given)

    def _strike_before(self, name: str) -> None:
        slow = self.world.faults.strikes("slow", name)
        if slow is not None:
            self.ended.wait(float(slow.get("seconds", 1)))
        if self.world.faults.down or self.world.faults.strikes("drop", name) is not None:
            raise Cut

    def _refuse(self, name: str) -> None:
        refused = self.world.faults.strikes("refuse", name)
        if refused is not None:
            raise OneError(Code(refused.get("code", Code.INTERNAL)), refused.get("message", "Refused by a fault."))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: Server

    def do_POST(self) -> None:
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if self.path != "/RPC2":
            self._send(HTTPStatus.NOT_FOUND, b"")
        elif not length.isdigit() or int(length) > _MOST_BYTES:
            self._send(HTTPStatus.BAD_REQUEST, b"")
        else:
            try:
                answer = self.server.answer(self.rfile.read(int(length)))
            except Cut:
                return
            self._send(HTTPStatus.OK, answer)

    def do_GET(self) -> None:
        self.close_connection = True
        self._send(HTTPStatus.METHOD_NOT_ALLOWED if self.path == "/RPC2" else HTTPStatus.NOT_FOUND, b"")

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
