"""HTTPS for long answers: `http.client` over a TLS session in memory, which receives bytes right where they belong."""

import contextlib
import http.client
import io
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

from snapferry.readers.memory_tls import MemoryTls

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LEAST_BYTES: Final = 64 << 10
"""With less of an answer within the timeout, a server trickles: that is silence, and no progress."""


class HttpsConnection(http.client.HTTPConnection):
    """A connection to a server whose certificate and name are checked; used by one thread, except for `cut`.

    Args:
        timeout_seconds: for a connection, for its handshake, and for each `LEAST_BYTES` of an answer with its head; up
            to twice as long where bytes trickle.
    """

    default_port = http.client.HTTPS_PORT

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, timeout_seconds: float) -> None:
        super().__init__(host, port, timeout=timeout_seconds)
        self._tls = tls
        self._timeout = timeout_seconds
        self._plain: socket.socket | None = None
        self._ended = False

    def connect(self) -> None:
        """Connects, and checks whom it has reached.

        Raises:
            OSError: nothing answers, TLS refuses it (ssl.SSLError), or it was cut.
        """
        self._plain = plain = socket.create_connection((self.host, self.port), self._timeout)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = MemoryTls(plain, self._tls, server_hostname=self.host)
            if self._ended:
                raise ConnectionAbortedError("it was cut")
        except BaseException:
            plain.close()
            raise
        self.sock = _Socket(plain, session, self._timeout)

    def cut(self) -> None:
        """Ends what its thread waits for, also a handshake; by any other one. The thread closes the connection."""
        self._ended = True
        if self._plain is not None:
            with contextlib.suppress(OSError):
                self._plain.shutdown(socket.SHUT_RDWR)


class _Socket:
    """What `http.client` asks of a socket; as with a real one, it stays open until its streams are closed, too."""

    def __init__(self, plain: socket.socket, session: MemoryTls, timeout_seconds: float) -> None:
        self._plain = plain
        self._timeout = timeout_seconds
        self._users = 1
        self.sendall = session.sendall
        self.recv_into = session.recv_into

    def makefile(self, mode: str) -> io.BufferedReader:
        """A stream of one answer."""
        assert mode == "rb"
        self._users += 1
        return io.BufferedReader(_Answer(self, self._timeout))

    def close(self) -> None:
        self._users -= 1
        if not self._users:
            self._plain.close()


class _Answer(io.RawIOBase):
    """The bytes of one answer as they come, as long as they come fast enough."""

    def __init__(self, sock: _Socket, timeout_seconds: float) -> None:
        self._sock = sock
        self._timeout = timeout_seconds
        self._since = 0.0
        self._came = 0

    def readable(self) -> bool:
        return True

    def readinto(self, view: "WriteableBuffer") -> int:
        """What has come; waits where nothing has.

        Raises:
            OSError: the connection broke, nothing came in time (TimeoutError), or too little did.
        """
        memory = memoryview(view)
        count = self._sock.recv_into(memory, len(memory))
        self._came, now = self._came + count, time.monotonic()
        if self._came >= LEAST_BYTES or not self._since:
            self._since, self._came = now, 0
        elif now - self._since > self._timeout:
            raise ConnectionAbortedError("the answer comes too slowly")
        return count

    def close(self) -> None:
        if not self.closed:
            self._sock.close()
        super().close()
