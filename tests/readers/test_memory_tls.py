"""What a TLS session in memory promises, against OpenSSL on the other end of a pair of sockets."""

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from snapferry.readers.memory_tls import MemoryTls
from snapferry.readers.nfc_wire import tls_context

Serve = Callable[[Callable[[ssl.SSLSocket, socket.socket], None]], MemoryTls]


@pytest.fixture
def serve(certificates: tuple[Any, Any]) -> Iterator[Serve]:
    """Begins a session whose other end does what it is told, with the session and with the bare socket under it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates[0].path)
    ours: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(act: Callable[[ssl.SSLSocket, socket.socket], None]) -> MemoryTls:
        near, far = socket.socketpair()
        near.settimeout(0.5)
        far.settimeout(10)
        bare = far.dup()

        def run() -> None:
            with suppress(OSError), bare, context.wrap_socket(far, server_side=True) as session:
                act(session, bare)

        ours.append(near)
        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return MemoryTls(near, tls_context())

    yield start
    for sock in ours:
        sock.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_bytes_come_whole_in_both_directions_however_long_the_reads_are(serve: Serve) -> None:
    sent = random.Random(3).randbytes(3_000_001)

    def echo(session: ssl.SSLSocket, _: socket.socket) -> None:
        left = len(sent)
        while left:
            data = session.recv(1 << 16)
            left -= len(data)
            session.sendall(data)

    tls, rng, came = serve(echo), random.Random(4), bytearray()
    for start in range(0, len(sent), 100_000):
        tls.sendall(sent[start : start + 100_000])
        due = min(start + 100_000, len(sent))
        while len(came) < due:
            view = memoryview(bytearray(rng.choice([1, 60, 5000, 1 << 20])))
            count = tls.recv_into(view, len(view))
            assert count
            came += view[:count]
    assert came == sent and tls.unread_bytes == 0


def test_a_session_that_is_ended_gives_what_came_before_and_then_nothing(serve: Serve) -> None:
    def end(session: ssl.SSLSocket, _: socket.socket) -> None:
        session.sendall(b"last words")
        session.unwrap()

    tls, view = serve(end), memoryview(bytearray(100))
    assert view[: tls.recv_into(view, 100)] == b"last words"
    assert tls.recv_into(view, 100) == 0


def test_a_connection_that_breaks_isnt_taken_for_the_sessions_end(serve: Serve) -> None:
    tls = serve(lambda session, _: session.sendall(b"a"))
    view = memoryview(bytearray(100))
    assert tls.recv_into(view, 100) == 1
    with pytest.raises(ConnectionResetError):
        tls.recv_into(view, 100)


def test_a_record_that_trickles_in_is_no_way_to_hold_the_reader(serve: Serve) -> None:
    def trickle(_: ssl.SSLSocket, bare: socket.socket) -> None:
        bare.sendall(b"\x17\x03\x03\x3f\xff")
        while True:
            bare.sendall(b"x")
            if threading.Event().wait(0.05):
                return

    tls, began = serve(trickle), time.monotonic()
    with pytest.raises(TimeoutError):
        tls.recv_into(memoryview(bytearray(100)), 100)
    assert time.monotonic() - began < 2


def test_a_forged_record_is_refused(serve: Serve) -> None:
    tls = serve(lambda _, bare: bare.sendall(b"\x17\x03\x03\x00\x20" + bytes(32)))
    with pytest.raises(ssl.SSLError):
        tls.recv_into(memoryview(bytearray(100)), 100)
