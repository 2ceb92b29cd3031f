"""TLS over a socket with few calls: what has come is taken in gulps and decrypted from memory."""

import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

_GULP_BYTES: Final = 512 << 10  # an `SSLSocket` takes two receives for each record of 16 KiB


class MemoryTls:
    """A TLS session; used like a blocking socket, by one thread.

    Every call ends after at most twice the socket's own timeout.

    Args:
        sock: connected, with a timeout; it stays the caller's, who may shut it down from any thread to end every wait.
        server_hostname: whom the other side's certificate has to name, where the context checks names.

    Raises:
        OSError: the handshake failed (ssl.SSLError), the connection broke, or nothing came in time (TimeoutError).
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_hostname: str | None = None) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._gulp = memoryview(bytearray(_GULP_BYTES))
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._read: Callable[[int, memoryview], int] = self._session.read  # type: ignore[assignment]
        late = self._late()
        while True:
            try:
                self._session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._fill(late)
        self._flush()
        self.certificate: bytes = self._session.getpeercert(binary_form=True) or b""

    @property
    def unread_bytes(self) -> int:
        """What has been taken from the socket and isn't decrypted yet."""
        return self._incoming.pending

    def recv_into(self, view: memoryview, length: int) -> int:
        """Receives up to `length` bytes: what has come, however many records. Waits only where nothing has.

        Returns:
            How many bytes came; 0 where the other side ended the session.
        """
        came, late = 0, 0.0
        while True:
            try:
                while came < length and (count := self._read(length - came, view[came:])):
                    came += count
                return came
            except ssl.SSLWantReadError:
                if came:
                    return came
                late = late or self._late()
                self._fill(late)

    def sendall(self, data: bytes | bytearray) -> None:
        self._session.write(data)
        self._flush()

    def _fill(self, late: float) -> None:
        """Takes what has come, or waits for it; what the session itself has to say goes out first."""
        self._flush()
        if time.monotonic() > late:
            raise TimeoutError
        count = self._sock.recv_into(self._gulp)
        if not count:
            raise ConnectionResetError("it was ended inside the TLS session")
        self._incoming.write(self._gulp[:count])

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())

    def _late(self) -> float:
        return time.monotonic() + (self._sock.gettimeout() or 0.0)
