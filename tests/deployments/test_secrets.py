"""Passwords stay in their blocks: nothing that a migration leaves behind or shows meanwhile holds one."""

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from secrets import token_urlsafe
from threading import Event, Thread

import pytest
from prefect.settings import PREFECT_HOME

from snapferry.blocks import VCenter
from snapferry.deployments import answer_gate

from .conftest import Site, save_blocks
from .support import begin, plan, watch, yes

SAMPLE_SECONDS = 0.05
CANARY = b"canary-in-a-coal-mine"


def spellings(secret: bytes) -> Iterator[bytes]:
    """The secret itself, and what it is within Base64, wherever it begins there."""
    yield secret
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + secret)
        yield coded[(8 * shift + 5) // 6 : 8 * (shift + len(secret)) // 6]


def holds(text: bytes, secret: bytes) -> bool:
    """Whether the secret is in the text."""
    return any(spelling in text for spelling in spellings(secret))


@pytest.mark.parametrize("before", [b"", b"1", b"12", b"123"])
def test_the_search_finds_a_secret_within_base64(before: bytes) -> None:
    assert holds(before + CANARY + b"!", CANARY)
    assert holds(base64.b64encode(before + CANARY + b"!"), CANARY)
    assert not holds(base64.b64encode(before + CANARY[::-1]), CANARY)


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Collects the command lines of all processes, twenty times a second."""
    found: set[bytes] = set()
    end = Event()

    def look() -> None:
        while not end.wait(SAMPLE_SECONDS):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    found.add(process.read_bytes())
                except OSError:
                    continue  # it has ended

    thread = Thread(target=look, name="command lines")
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()


def rows(database: Path) -> Iterator[tuple[str, bytes]]:
    """Every row of every table, with its table's name; the file alone could hide a text that spans two pages."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - its own names
                yield table, b"\0".join(one if isinstance(one, bytes) else str(one).encode() for one in row)


def left_behind(site: Site) -> dict[str, bytes]:
    """Everything that server, worker and lab have written, by where it is: files, and the database's tables."""
    prefect_home = PREFECT_HOME.value()
    files = [one for folder in (prefect_home, site.folder) for one in folder.rglob("*") if one.is_file()]
    found = {}
    for one in (*files, *site.lab.folder.rglob("*.log")):
        with suppress(FileNotFoundError):  # a run's process removes its workspace a moment after the run has ended
            found[str(one)] = one.read_bytes()
    for table, row in rows(prefect_home / "prefect.db"):
        found[table] = found.get(table, b"") + row + b"\0"
    return found


@pytest.mark.slow
def test_no_password_is_left_anywhere(site: Site) -> None:
    """A migration, and two runs whose login is refused: errors are where passwords slip out."""
    ends, wrong = site.lab.endpoints, f"wrong-{token_urlsafe(18)}"
    save_blocks("refused", site.lab, password=wrong)
    with command_lines() as shown:
        migration = begin("migrate-vm/migrate", plan("canary"))
        refused = [begin("presync-vm/presync", plan("canary", **{end: "refused"})) for end in ("vcenter", "opennebula")]
        assert watch(migration).outcome == "waiting"
        answer_gate(migration, yes("canary"))
        assert watch(migration).outcome == "completed"
        assert [watch(one).error for one in refused] == ["WrongPassword", "WrongPassword"]
    found = left_behind(site) | {"command lines": b"\n".join(shown)}
    check_complete(site, found)
    for secret in (ends.vcenter_password, ends.opennebula_password, wrong):
        assert [where for where, text in found.items() if holds(text, secret.encode())] == []
    assert VCenter.load("lab").password.get_secret_value() == ends.vcenter_password


def check_complete(site: Site, found: dict[str, bytes]) -> None:
    """What was searched is where a password would be: each of these places tells of the migration."""
    results = [text for where, text in found.items() if "/storage/" in where]
    for text in (found[str(site.folder / "worker.log")], found["flow_run"], found["log"], found["artifact"]):
        assert b"canary" in text
    assert any(b"snapshot" in text for text in results)
    assert b'"when"' in found["flow_run_input"]
    assert all(block in found["block_document"] for block in (b"lab", b"refused"))
    assert b"prefect.engine" in found["command lines"] and b"snapferry.lab" in found["command lines"]
