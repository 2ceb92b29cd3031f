"""A disk is read through its files: over HTTPS whatever the server does, and where its datastore is mounted."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from pydantic import SecretStr

from snapferry.errors import Stopped
from snapferry.lab.ca import CertificateAuthority
from snapferry.lab.https import Handler, HttpsServer
from snapferry.readers import (
    DatastoreError,
    DatastoreLocked,
    DatastoreReader,
    DatastoreRefused,
    DatastoreSilent,
    HttpsFolder,
)
from snapferry.readers.https_connection import HttpsConnection
from snapferry.transfer import Extents
from snapferry.vmdk import ChainError, LocalFolder
from snapferry.vsphere.models import FolderAccess

from ..conftest import wait_for
from .dead_mount import dead_mount

MIB: Final = 1 << 20
CAPACITY: Final = 9 * MIB + 512
COOKIE: Final = "vmware_soap_session"


class Server(Handler):
    """A datastore's server that can misbehave: `acts` are taken off one a request."""

    root: Path
    acts: list[str]
    log: list[tuple[int, str]]
    """Of each request: how many bytes were asked for, and how it was authenticated."""
    sessions: set[str]
    release: threading.Event

    def do_GET(self) -> None:
        act = self.acts.pop(0) if self.acts else ""
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        cookie = self.headers.get("Cookie", "").removeprefix(f"{COOKIE}=")
        self.log.append((last - first + 1, "cookie" if cookie else "password"))
        if act == "expire":
            self.sessions.clear()
        headers = {}
        if cookie not in self.sessions:
            if self.headers.get("Authorization") != "Basic dXNlcjpzZWNyZXQ=":
                self.reply(HTTPStatus.UNAUTHORIZED, b"", "text/plain")
                return
            self.sessions.add("abc")
            headers["Set-Cookie"] = f'{COOKIE}="abc"; Path=/; HttpOnly; Secure;'
        file = self.root / self.path.partition("?")[0].removeprefix("/folder/vm/")
        assert self.path.endswith("?dcPath=Vienna%2Fdc1&dsName=nfs1")
        if not file.is_file():
            self.reply(HTTPStatus.NOT_FOUND, b"", "text/plain")
            return
        whole = file.read_bytes()
        data = whole[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(data) - 1}/{len(whole)}"
        if act.isdigit():
            self.reply(int(act), b"no", "text/plain", {"Location": "https://elsewhere/"})
        elif act == "slow":
            self.release.wait(0.3)
            self.reply(HTTPStatus.PARTIAL_CONTENT, data, "text/plain", headers)
        elif act == "whole":
            self.reply(HTTPStatus.OK, whole, "text/plain")
        elif act == "another range":
            self.reply(HTTPStatus.PARTIAL_CONTENT, data, "text/plain", {"Content-Range": f"bytes 0-9/{len(whole)}"})
        elif act == "grown":
            headers["Content-Range"] = headers["Content-Range"] + "7"
            self.reply(HTTPStatus.PARTIAL_CONTENT, data, "text/plain", headers)
        elif act == "too long":
            self.reply(HTTPStatus.PARTIAL_CONTENT, data + b"more", "text/plain", headers)
        elif act == "trickle":
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            for at in range(len(data)):
                self.wfile.write(data[at : at + 1])
                self.wfile.flush()
                if self.release.wait(0.2):
                    break
            self.close_connection = True
        elif act == "head trickles":
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            self.flush_headers()
            for byte in b"X-Long: " + b"x" * 600:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.release.wait(0.1):
                    break
            self.close_connection = True
        elif act in ("cut", "hang"):
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if act == "hang":
                self.release.wait(30)
            self.close_connection = True
        else:
            self.reply(HTTPStatus.PARTIAL_CONTENT, data, "text/plain", headers)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def disk(tmp_path: Path) -> bytes:
    """The bytes of `disk.vmdk`, a chain of a flat base and one delta."""
    data = bytearray(CAPACITY)
    for start in range(0, CAPACITY, 1_300_000):
        data[start : start + 300_000] = Random(start).randbytes(min(300_000, CAPACITY - start))
    data[-512:] = b"e" * 512
    (tmp_path / "disk.raw").write_bytes(data)
    for command in (
        ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", "disk.raw", "base.vmdk"],
        ["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", "base.vmdk", "disk.vmdk"],
    ):
        subprocess.run(["qemu-img", *command], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        ["qemu-io", "-f", "vmdk", "-c", "write -P 7 64k 192k", "-c", "write -z 1M 128k", tmp_path / "disk.vmdk"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    data[64 << 10 : 256 << 10] = b"\x07" * (192 << 10)
    data[MIB : MIB + (128 << 10)] = bytes(128 << 10)
    return bytes(data)


@pytest.fixture
def server(tmp_path: Path, authority: CertificateAuthority) -> Iterator[tuple[type[Server], FolderAccess]]:
    fields = {"root": tmp_path, "acts": [], "log": [], "sessions": set(), "release": threading.Event()}
    handler = type("OneServer", (Server,), fields)
    running = HttpsServer(handler, authority.issue("localhost").server_context(), "datastore")
    running.start()
    tls = ssl.create_default_context(cafile=authority.file)
    yield handler, FolderAccess("localhost", running.port, tls, "user", SecretStr("secret"), "Vienna/dc1", "nfs1")
    handler.release.set()
    running.stop()


Open = Callable[..., DatastoreReader]


@pytest.fixture
def open_disk(server: tuple[type[Server], FolderAccess]) -> Iterator[Open]:
    """Opens the disk over HTTPS."""
    with contextlib.ExitStack() as stack:

        def opened(
            path: str = "[nfs1] vm/disk.vmdk", capacity: int = CAPACITY, answer_seconds: float = 30, **fields: Any
        ) -> DatastoreReader:
            folder = HttpsFolder(server[1]._replace(**fields), timeout_seconds=2, backoff_seconds=(0.01, 0.05, 0.1))
            stack.callback(folder.close)
            reader = DatastoreReader.open(folder, path, capacity, threading.Event(), answer_seconds=answer_seconds)
            stack.callback(reader.close)
            return reader

        yield opened


def read(reader: DatastoreReader, extents: Extents | None = None) -> bytes:
    """The disk, `?` where it wasn't asked for; each byte has to come just once."""
    wanted = extents or Extents.whole(CAPACITY)
    out, left = bytearray(b"?" * CAPACITY), wanted
    for block in reader.read(wanted, threading.Event()):
        piece = Extents.from_pairs([(block.offset, block.length)])
        assert block.length > 0 and left.intersect(piece) == piece
        left = left.subtract(piece)
        out[block.offset : block.offset + block.length] = bytes(block.length) if block.data is None else block.data
    assert not left
    return bytes(out)


def test_a_chain_is_read_over_https_with_one_login(open_disk: Open, server: Any, disk: bytes) -> None:
    reader = open_disk()
    assert read(reader) == disk
    assert [how for _, how in server[0].log].count("password") == 1
    some = Extents.from_pairs([(0, 512), (65_536, 4096), (3 * MIB, 100_352), (CAPACITY - 1024, 1024)])
    out = read(reader, some)
    assert all(out[start : start + length] == disk[start : start + length] for start, length in some)
    assert out.count(b"?") >= CAPACITY - some.total_bytes


def test_a_mounted_datastore_is_read_and_not_left(tmp_path: Path, disk: bytes) -> None:
    reader = DatastoreReader.open(LocalFolder(tmp_path), "[nfs1] disk.vmdk", CAPACITY, threading.Event())
    assert read(reader) == disk
    reader.close()
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.vmdk").symlink_to(tmp_path / "disk.vmdk")
    for path in ("[nfs1] ../disk.vmdk", "[nfs1] link.vmdk"):
        with pytest.raises(ChainError, match="outside"):
            DatastoreReader.open(LocalFolder(inner), path, CAPACITY, threading.Event())


@pytest.mark.parametrize("act", ["cut", "hang", "503", "502", "expire"])
def test_a_request_that_breaks_is_taken_up_where_it_broke(act: str, open_disk: Open, server: Any, disk: bytes) -> None:
    reader = open_disk()
    before = len(server[0].log)
    server[0].acts += ["", act, act, "", act]
    assert read(reader) == disk
    asked = sum(length for length, _ in server[0].log[before:])
    again = {"cut": 1.5, "hang": 1.5}.get(act, 3.0) * (2 << 20)  # a half of each range had come
    assert asked <= CAPACITY + again + 2 * MIB


@pytest.mark.parametrize(
    ("acts", "error", "why"),
    [
        (["", "404"] * 9, ChainError, "There is no file"),
        (["500"] * 9, DatastoreLocked, "running VM"),
        (["302"] * 9, DatastoreError, "points elsewhere"),
        (["whole"] * 9, DatastoreError, "whole files only"),
        (["another range"] * 9, DatastoreError, "the server answers"),
        (["503"] * 9, DatastoreError, "status 503"),
        (["too long"] * 9, DatastoreError, "with 5 bytes"),
    ],
)
def test_what_a_server_does_wrong_has_a_name(
    acts: list[str], error: type[Exception], why: str, open_disk: Open, server: Any, disk: bytes
) -> None:
    server[0].acts += acts
    with pytest.raises(error, match=why):
        open_disk()


def test_a_file_that_grows_while_it_is_read_isnt_trusted(open_disk: Open, server: Any, disk: bytes) -> None:
    reader = open_disk()
    server[0].acts += [""] * 2 + ["grown"] * 9
    with pytest.raises(DatastoreError, match="somebody writes to it"):
        read(reader)


@pytest.mark.slow
def test_a_server_that_trickles_is_given_up(open_disk: Open, server: Any, disk: bytes) -> None:
    reader = open_disk()
    server[0].acts += ["trickle"] * 40
    with pytest.raises(DatastoreError, match="too slowly"):
        read(reader)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "answer_seconds", "error", "why"),
    [
        ("read", 30, DatastoreError, "too slowly"),
        ("read", 3, DatastoreSilent, "no answer within 3 s"),
        ("open", 3, DatastoreSilent, "no answer within 3 s"),
    ],
)
def test_an_answer_whose_head_doesnt_end_is_given_up(
    what: str, answer_seconds: float, error: type[Exception], why: str, open_disk: Open, server: Any, disk: bytes
) -> None:
    """Each byte of it comes in time, so that no silence of the connection tells."""
    acts, began = ["head trickles"] * 40, time.monotonic()
    if what == "open":
        server[0].acts += acts
        with pytest.raises(error, match=why):
            open_disk(answer_seconds=answer_seconds)
    else:
        reader = open_disk(answer_seconds=answer_seconds)
        server[0].acts += acts
        with pytest.raises(error, match=why):
            read(reader)
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_many_slow_answers_are_no_silence(open_disk: Open, server: Any, disk: bytes) -> None:
    """Tables are read one after the other: all together may take longer than one answer may."""
    server[0].acts += ["slow"] * 40
    began = time.monotonic()
    reader = open_disk(answer_seconds=1)
    assert time.monotonic() - began > 1
    assert read(reader) == disk


def test_a_connection_is_cut_in_its_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tls = ssl.create_default_context()
        connection = HttpsConnection("127.0.0.1", silent.getsockname()[1], tls, 30)
        failed: list[OSError] = []

        def connect() -> None:
            try:
                connection.connect()
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        silent.accept()[0].recv(1)  # it has said hello
        connection.cut()
        thread.join(5)
    assert failed and not thread.is_alive()


@pytest.mark.parametrize("good", [0, 3], ids=["table", "data"])
def test_a_request_that_hangs_stops_within_a_second(good: int, open_disk: Open, server: Any, disk: bytes) -> None:
    reader, stop = open_disk(), threading.Event()
    server[0].acts += [*[""] * good, *["hang"] * 20]
    before = len(server[0].log)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            list(reader.read(Extents.whole(CAPACITY), stop))
        except Stopped as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: len(server[0].log) > before + good, 10, "the request that hangs")
    stop.set()
    thread.join(1)
    assert failed and not thread.is_alive()
    threads = [one for one in threading.enumerate() if one.name.startswith("datastore_")]
    wait_for(lambda: not any(one.is_alive() for one in threads), 5, "the end of its threads")


def test_a_disk_of_another_size_is_refused(open_disk: Open, disk: bytes) -> None:
    with pytest.raises(ChainError, match="a disk of"):
        open_disk(capacity=CAPACITY + 512)


def test_a_wrong_password_and_a_strange_certificate_are_refused(open_disk: Open, server: Any, disk: bytes) -> None:
    with pytest.raises(DatastoreRefused, match="refuses user") as refused:
        open_disk(password=SecretStr("wrong"))
    assert "wrong" not in str(refused.value)
    before = len(server[0].log)
    with pytest.raises(DatastoreRefused, match="isn't trusted"):
        open_disk(tls=ssl.create_default_context())
    assert len(server[0].log) == before


def test_small_gaps_are_read_over_and_large_ones_are_not(open_disk: Open, server: Any, disk: bytes) -> None:
    reader, log = open_disk(), server[0].log
    near = Extents.from_pairs([(at, 4096) for at in range(2 * MIB, 6 * MIB, 40 << 10)])
    far = Extents.from_pairs([(at, 4096) for at in range(2 * MIB, 6 * MIB, 200 << 10)])
    for wanted, requests in ((near, 2 + 1), (far, len(far) + 1)):
        before = len(log)
        out = read(reader, wanted)
        assert len(log) - before <= requests  # one is the delta's table
        assert all(out[start : start + length] == disk[start : start + length] for start, length in wanted)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("what", ["open", "read"])
def test_a_mount_that_hangs_holds_up_neither_a_stop_nor_the_end_of_the_process(what: str, tmp_path: Path) -> None:
    with dead_mount(tmp_path):
        command = [sys.executable, "-m", "tests.readers.dead_mount", what, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
