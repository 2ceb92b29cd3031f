"""The datastore reader against a real web server: nginx, which gives no cookie, as an ESXi host gives none."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

import pytest
from pydantic import SecretStr

from snapferry.lab.ca import CertificateAuthority
from snapferry.readers import DatastoreError, DatastoreLocked, DatastoreReader, DatastoreRefused, HttpsFolder
from snapferry.transfer import Extents
from snapferry.vsphere.models import FolderAccess

from ..conftest import free_port
from ..vmdk.builders import ChainBuilder
from .nginx import Nginx

MIB: Final = 1 << 20
CAPACITY: Final = 17 * MIB + 512
FLAT: Final = "web01-flat.vmdk"


class Site:
    """A disk of a flat base and two deltas, the servers that serve it, and readers of it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self.files = folder / "files"
        self.files.mkdir()
        self._own = folder / "nginx"
        self._own.mkdir()
        self._authority = CertificateAuthority(folder)
        self.disk = ChainBuilder(self.files, CAPACITY, Random(1))
        self.disk.add_sesparse(300)
        self.disk.add_sesparse(20)
        self.port = free_port()

    def serve(self, more: str = "") -> Nginx:
        return self._stack.enter_context(
            Nginx(self._own, self.files, self._authority.issue("localhost"), self.port, more)
        )

    def reader(self, **fields: object) -> DatastoreReader:
        tls = ssl.create_default_context(cafile=self._authority.file)
        access = FolderAccess("localhost", self.port, tls, "user", SecretStr("secret"), "Vienna/dc1", "nfs1")
        waits = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
        folder = HttpsFolder(access._replace(**fields), timeout_seconds=5, backoff_seconds=waits)
        self._stack.callback(folder.close)
        found = DatastoreReader.open(folder, f"[nfs1] vm/{self.disk.leaf}", CAPACITY, threading.Event())
        self._stack.callback(found.close)
        return found

    def check(
        self, reader: DatastoreReader, wanted: Extents | None = None, act: Callable[[], None] | None = None
    ) -> None:
        """Reads; each byte has to come once, and to be the disk's. Behind the first block `act` is done."""
        wanted = left = wanted or Extents.whole(CAPACITY)
        for block in reader.read(wanted, threading.Event()):
            piece = Extents.from_pairs([(block.offset, block.length)])
            assert left.intersect(piece) == piece
            left = left.subtract(piece)
            expected = self.disk.bytes[block.offset : block.offset + block.length]
            assert (bytes(block.length) if block.data is None else block.data) == expected
            if act and block.data is not None:
                act()
                act = None
        assert not left


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def test_a_chain_and_parts_of_it_are_read(site: Site) -> None:
    site.serve()
    reader = site.reader()
    site.check(reader)
    rng = Random(2)
    pairs = [(at, rng.choice([512, 4096, 9000])) for at in range(0, CAPACITY - 9000, 77 << 10)]
    site.check(reader, Extents.from_pairs(pairs))


def test_connections_that_the_server_ends_after_each_answer_are_made_again(site: Site) -> None:
    nginx = site.serve("keepalive_timeout 0;")
    site.check(site.reader())
    assert set(nginx.statuses()) == {206}


def test_connections_that_the_server_ends_after_some_answers_are_made_again(site: Site) -> None:
    nginx = site.serve("keepalive_requests 3;")
    site.check(site.reader())
    assert set(nginx.statuses()) == {206}


def test_a_restart_in_the_middle_of_a_copy_is_waited_for(site: Site) -> None:
    nginx = site.serve("limit_rate 8m;")
    restart = threading.Thread(target=nginx.start)

    def act() -> None:
        nginx.stop()
        restart.start()

    site.check(site.reader(), act=act)
    restart.join(10)
    assert not restart.is_alive()


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_refuses_some_of_the_requests_is_asked_again(status: int, site: Site) -> None:
    nginx = site.serve(f"limit_conn requests 2; limit_conn_status {status}; limit_rate 8m;")
    reader = site.reader()
    site.check(reader, Extents.of([3 * MIB], [CAPACITY - 3 * MIB]))
    assert {206, status} == set(nginx.statuses())


def test_a_file_that_a_running_vm_locks_is_named(site: Site) -> None:
    site.serve(f"location /folder/vm/{FLAT} {{ return 500; }}")
    with pytest.raises(DatastoreLocked, match="running VM"):
        site.reader()


@pytest.mark.parametrize("left", [0, 5 * MIB, CAPACITY - 512])
def test_a_file_that_shrinks_isnt_trusted(left: int, site: Site) -> None:
    site.serve("limit_rate 8m;")
    reader = site.reader()
    flat = site.files / FLAT
    with pytest.raises(DatastoreError, match=r"somebody writes to it|asked for .* answers"):
        site.check(reader, act=lambda: flat.open("r+b").truncate(left))


def test_a_wrong_password_another_name_and_another_authority_are_refused(site: Site, tmp_path: Path) -> None:
    nginx = site.serve()
    with pytest.raises(DatastoreRefused, match="refuses user") as refused:
        site.reader(password=SecretStr("wrong"))
    assert "wrong" not in str(refused.value)
    asked = len(nginx.statuses())
    for fields in ({"host": "127.0.0.2"}, {"tls": ssl.create_default_context()}):
        with pytest.raises(DatastoreRefused, match="isn't trusted"):
            site.reader(**fields)
    assert len(nginx.statuses()) == asked
