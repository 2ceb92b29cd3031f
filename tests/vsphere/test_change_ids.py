"""Change ids: what they say, and when a base isn't trusted."""

import re

import pytest

from snapferry.vsphere import ChangesUnknown, parse_change_id, trusted_base

UUID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63"
OTHER = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 64"


def test_a_change_id_is_read_as_uuid_and_sequence() -> None:
    assert parse_change_id(f"{UUID}/81") == (UUID, 81)
    assert parse_change_id(f"{UUID.upper()}/9000000000") == (UUID, 9_000_000_000)


@pytest.mark.parametrize("text", ["", "*", "81", f"{UUID}", f"{UUID}/", f"{UUID}/x", f"{UUID}/-1", f"{UUID[:-3]}/81"])
def test_what_is_no_change_id_is_refused(text: str) -> None:
    with pytest.raises(ChangesUnknown, match="is no change id"):
        parse_change_id(text)


@pytest.mark.parametrize("sequence", [81, 82, 5000])
def test_a_base_of_the_same_tracking_is_trusted(sequence: int) -> None:
    assert trusted_base(f"{UUID}/81", f"{UUID}/{sequence}") is None


@pytest.mark.parametrize(
    ("base", "snapshot", "reason"),
    [
        (f"{UUID}/81", f"{OTHER}/82", "was reset"),
        (f"{UUID}/81", f"{UUID}/80", "reverted"),
        (f"{UUID}/81", None, "no change id"),
        (f"{UUID}/81", "", "no change id"),
        (f"{UUID}/81", "garbage", "'garbage' is no change id"),
        ("*", f"{UUID}/81", "'\\*' is no change id"),
    ],
)
def test_a_doubtful_base_is_not_trusted_and_the_reason_is_said(base: str, snapshot: str | None, reason: str) -> None:
    said = trusted_base(base, snapshot)
    assert said is not None
    assert re.search(reason, said)
