"""A journal is believed only where it is whole and about the very same round."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapferry.transfer import Extents, FileJournal, JournalFailed, NoJournal

IDENTITY = {"migration": "m1", "disk": "6000C29a", "snapshot": "snapshot-7", "base": "52 de/1", "image": "12"}
FIRST, SECOND = Extents.from_pairs([(0, 100), (500, 10)]), Extents.from_pairs([(100, 100)])


def test_a_journal_is_taken_up_by_the_next_attempt_at_the_same_round(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal"
    journal = FileJournal(path, IDENTITY)
    assert journal.done() == Extents.empty()
    journal.add(FIRST)
    journal.add(SECOND)
    assert journal.done() == FileJournal(path, IDENTITY).done() == FIRST.union(SECOND)


@pytest.mark.parametrize("field", IDENTITY)
def test_a_journal_of_another_round_is_void(tmp_path: Path, field: str) -> None:
    path = tmp_path / "journal"
    FileJournal(path, IDENTITY).add(FIRST)
    other = FileJournal(path, IDENTITY | {field: "another"})
    assert other.done() == Extents.empty()
    other.add(SECOND)
    assert FileJournal(path, IDENTITY).done() == Extents.empty()
    assert FileJournal(path, IDENTITY | {field: "another"}).done() == SECOND


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), junk=st.binary(max_size=20))
def test_a_torn_tail_is_ignored_and_written_over(tmp_path: Path, cut: int, junk: bytes) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    journal = FileJournal(path, IDENTITY)
    sizes = []
    for extents in (FIRST, SECOND):
        journal.add(extents)
        sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    torn = whole[:cut] + junk
    path.write_bytes(torn)
    again = FileJournal(path, IDENTITY)
    if torn.startswith(whole):
        assert again.done() == FIRST.union(SECOND)
    else:
        assert again.done() == (FIRST if torn.startswith(whole[: sizes[0]]) else Extents.empty())
    third = Extents.from_pairs([(9000, 1)])
    again.add(third)
    assert FileJournal(path, IDENTITY).done() == again.done()
    assert third.subtract(again.done()) == Extents.empty()


def test_a_changed_byte_voids_its_record_and_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path, IDENTITY)
    journal.add(FIRST)
    journal.add(SECOND)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"500", b"900")
    path.write_bytes(b"".join(lines))
    assert FileJournal(path, IDENTITY).done() == Extents.empty()


def test_a_journal_carries_over_what_an_earlier_copy_left_and_voids_that_ones(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    before = FileJournal(path, IDENTITY)
    before.add(FIRST)
    now = FileJournal(path, IDENTITY | {"snapshot": "snapshot-8"})
    assert before.begun and not now.begun
    now.carry_over(before.done().subtract(Extents.from_pairs([(0, 50)])))
    now.add(SECOND)
    again = FileJournal(path, IDENTITY | {"snapshot": "snapshot-8"})
    assert again.begun
    assert again.done() == Extents.from_pairs([(50, 150), (500, 10)])
    assert not FileJournal(path, IDENTITY).begun
    assert [one.name for one in tmp_path.iterdir()] == ["journal"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_the_worker_can_read_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journals" / "one"
    FileJournal(path, IDENTITY).add(FIRST)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_cleared_journal_is_empty_and_takes_entries_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path, IDENTITY)
    journal.clear()
    journal.add(FIRST)
    journal.clear()
    assert not path.exists()
    assert journal.done() == FileJournal(path, IDENTITY).done() == Extents.empty()
    journal.add(SECOND)
    assert FileJournal(path, IDENTITY).done() == SECOND


def test_a_journal_is_plain_lines_that_a_person_can_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    FileJournal(path, IDENTITY).add(FIRST)
    records = [json.loads(line.split(" ", 1)[1]) for line in path.read_text().splitlines()]
    assert records == [{"format": 1, "identity": IDENTITY}, [[0, 100], [500, 10]]]


def test_a_symbolic_link_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    (tmp_path / "journal").symlink_to(tmp_path / "other")
    with pytest.raises(JournalFailed, match="journal"):
        FileJournal(tmp_path / "journal", IDENTITY)
    assert (tmp_path / "other").read_text() == "precious"


def test_no_journal_forgets_everything() -> None:
    journal = NoJournal()
    journal.add(FIRST)
    assert journal.done() == Extents.empty()
    journal.clear()
