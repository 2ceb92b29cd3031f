"""A host in this process with small disks, its servers, and an NFC client that knows nothing of `readers`."""

import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snapferry.lab.host import HostService
from snapferry.lab.host.chain import View
from snapferry.lab.host.folder import FolderServer
from snapferry.lab.host.nfc import NfcServer
from snapferry.lab.kinds import KINDS, KindName
from snapferry.vmdk import LocalFolder, VmdkUnsupported, open_chain

from ...odd import new_disk

MIB = 1 << 20
NewVm = Callable[..., None]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[HostService]:
    host = HostService(tmp_path / "lab", seed=1, leaf_busy_seconds=0)
    yield host
    host.stop()


@pytest.fixture
def store_kind() -> KindName:
    """Of the datastore `san1`; tests of several kinds override it."""
    return "vmfs6"


@pytest.fixture
def new_vm(service: HostService, store_kind: KindName) -> NewVm:
    """Makes a VM `vm-1` in `[san1] web01`; keyword arguments change its first disk and its workload."""

    def make(*capacities: int, data_bytes: int = 4 * MIB, data_runs: int = 16, seed: int = 7, **workload: Any) -> None:
        disks = [
            new_disk(capacity, data_bytes, data_runs, store_kind, number) for number, capacity in enumerate(capacities)
        ]
        service.create_vm("vm-1", "san1", "web01", "web01", disks, workload, seed)

    return make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=esx1.lab.test", "-addext", "subjectAltName=DNS:esx1.lab.test,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True, timeout=60)
    return cert, key


@pytest.fixture
def nfc(service: HostService, certificate: tuple[Path, Path]) -> Iterator[NfcServer]:
    server = NfcServer(service, *certificate, memory_bytes=20_000_000)
    yield server
    server.close()


@pytest.fixture
def folder_server(service: HostService, certificate: tuple[Path, Path]) -> Iterator[FolderServer]:
    server = FolderServer(service, *certificate)
    yield server
    server.close()


@dataclass
class Fragment:
    operation: int
    offset: int
    data: bytes


class NfcError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class NfcClient:
    """The client's side of the protocol, as plainly as the reference has it."""

    def __init__(self, port: int, cert: Path, ticket: str, proxy: str = "vpxa-nfcssl") -> None:
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.load_verify_locations(cert)
        self.operation = -1
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock: socket.socket = raw
        assert self.line().startswith("220 ")
        self.sock = outer = self.tls.wrap_socket(raw, server_hostname="esx1.lab.test")
        outer.sendall(f"SESSION {ticket}\r\nBANNER \r\n".encode())
        self.expect("220 ")
        outer.sendall(b"THUMBPRINT_SHA2 PlainText\r\n")
        self.thumbprint = self.expect("200 ")[4:]
        outer.sendall(f"PROXY {proxy}\r\n".encode())
        self.expect("200 Connect ha-nfc")
        inner = socket.socket(fileno=outer.detach())
        inner.settimeout(10)
        self.sock = self.tls.wrap_socket(inner, server_hostname="esx1.lab.test") if proxy.endswith("ssl") else inner
        self.handshake()

    def expect(self, start: str) -> str:
        line = self.line()
        if not line.startswith(start):
            self.sock.close()
            raise NfcError(int(line[:3]), line)
        return line

    def line(self) -> str:
        out = b""
        while not out.endswith(b"\n"):
            out += self.exactly(1)
        return out.decode().rstrip()

    def exactly(self, length: int) -> bytes:
        out = bytearray()
        while len(out) < length:
            data = self.sock.recv(length - len(out))
            if not data:
                raise ConnectionError("closed")
            out += data
        return bytes(out)

    def classic(self, kind: int, body: bytes = b"") -> None:
        self.sock.sendall((struct.pack("<I", kind) + body).ljust(264, b"\0"))

    def classic_reply(self, kind: int) -> bytes:
        message = self.exactly(264)
        assert struct.unpack_from("<I", message)[0] == kind
        return message

    def handshake(self) -> None:
        self.classic(43, b"PlainText")
        self.classic(33)
        assert struct.unpack_from("<I", self.classic_reply(36), 16)[0] == 1
        self.classic(51, struct.pack("<I", 11))
        assert struct.unpack_from("<I", self.classic_reply(51), 4)[0] == 11
        self.classic(54, struct.pack("<II", 4, 7))
        self.sock.sendall(b"vddknbdmode")
        self.classic(55, struct.pack("<I", 3))
        self.classic(52)
        self.classic_reply(52)

    def send(self, kind: int, payload: bytes, extra: bytes = b"") -> int:
        self.operation += 1
        self.sock.sendall(struct.pack("<4I", 0xA100DA7A, kind, len(payload), self.operation) + payload + extra)
        return self.operation

    def frame(self) -> tuple[int, int, bytes]:
        magic, kind, size, operation = struct.unpack("<4I", self.exactly(16))
        assert magic == 0xA100DA7A
        payload = self.exactly(size)
        if kind == 1:
            raise NfcError(struct.unpack_from("<I", payload)[0], payload[4:].decode())
        return kind, operation, payload

    def ask(self, kind: int, payload: bytes, extra: bytes = b"") -> bytes:
        operation = self.send(kind, payload, extra)
        got, answered, reply = self.frame()
        assert (got, answered) == (kind, operation)
        return reply

    def open_session(self, buffer_bytes: int = 0, buffers: int = 0) -> None:
        assert self.ask(2, struct.pack("<4I", 0, buffer_bytes, buffers, 0)) == bytes(16)
        assert len(self.ask(9, bytes(12))) == 12
        self.ask(22, struct.pack("<I", 1))

    def open_file(self, path: str) -> tuple[int, int]:
        """(handle, capacity in bytes)"""
        name = path.encode()
        reply = self.ask(4, struct.pack("<6I36x", len(name), 0, 0, 0, 2, 0x1E), name)
        assert len(reply) == 60
        assert struct.unpack_from("<I", reply, 36)[0] == 512
        return struct.unpack_from("<Q", reply, 8)[0], struct.unpack_from("<Q", reply, 28)[0]

    def ddb(self, handle: int, key: str) -> str:
        (length,) = struct.unpack("<12xI", self.ask(11, struct.pack("<QII", handle, len(key), 0), key.encode()))
        return self.exactly(length).decode()

    def request(self, handle: int, offset: int, length: int) -> int:
        return self.send(7, struct.pack("<4Q3I", handle, 1, offset, length, length, length, 0))

    def fragment(self) -> Fragment:
        kind, operation, payload = self.frame()
        assert kind == 7
        _, opcode, _, _, start, length, wire, _ = struct.unpack("<3Q5I", payload)
        assert (opcode, wire) == (1, length)
        return Fragment(operation, start, self.exactly(length))

    def read(self, handle: int, offset: int, length: int) -> bytes:
        operation, out, left = self.request(handle, offset, length), bytearray(length), length
        while left:
            piece = self.fragment()
            assert piece.operation == operation
            out[piece.offset : piece.offset + len(piece.data)] = piece.data
            left -= len(piece.data)
        return bytes(out)

    def close(self, handle: int | None = None) -> None:
        if handle is not None:
            self.ask(5, struct.pack("<Q", handle))
            self.ask(3, bytes(4))
            self.classic(4)
        self.sock.close()


@pytest.fixture
def connect(nfc: NfcServer, service: HostService, certificate: tuple[Path, Path]) -> Iterator[Callable[..., NfcClient]]:
    """Opens an NFC connection with a fresh ticket for `vm-1`."""
    clients: list[NfcClient] = []

    def make(key: int | None = None, ticket: str | None = None, proxy: str = "vpxa-nfcssl") -> NfcClient:
        if ticket is None:
            ticket = f"52-{len(clients)}"
            service.open_ticket(ticket, "vm-1", key)
        clients.append(NfcClient(nfc.port, certificate[0], ticket, proxy))
        return clients[-1]

    yield make
    for client in clients:
        client.sock.close()


def export(view: View, path: Path) -> Path:
    """The lab's own view of a disk as a raw file."""
    with path.open("wb") as file:
        file.truncate(view.capacity_bytes)
        for offset, data in view.blocks():
            file.seek(offset)
            file.write(data)
    return path


@pytest.fixture
def qemu_agrees(tmp_path: Path, store_kind: KindName) -> Callable[[View], None]:
    """Compares the lab's view of a frozen or closed disk with what qemu-img makes of its files.

    Where a disk has no files, its chain has to be refused for that reason.
    """
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img isn't installed")

    def compare(view: View) -> None:
        if not KINDS[store_kind].has_files:
            with pytest.raises(VmdkUnsupported, match="in no file"):
                open_chain(LocalFolder(view.layers[-1].path.parent), view.layers[-1].path.name)
            return
        raw = export(view, tmp_path / "view.raw")
        command = ["qemu-img", "compare", "-f", "raw", "-F", "vmdk", str(raw), str(view.layers[-1].path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        raw.unlink()

    return compare
