"""Change ids: what they say."""

import pytest

from snapferry.vsphere import ChangesUnknown, parse_change_id

UUID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63"


def test_a_change_id_is_read_as_uuid_and_sequence() -> None:
    assert parse_change_id(f"{UUID}/81") == (UUID, 81)
    assert parse_change_id(f"{UUID.upper()}/9000000000") == (UUID, 9_000_000_000)


@pytest.mark.parametrize("text", ["", "*", "81", f"{UUID}", f"{UUID}/", f"{UUID}/x", f"{UUID}/-1", f"{UUID[:-3]}/81"])
def test_what_is_no_change_id_is_refused(text: str) -> None:
    with pytest.raises(ChangesUnknown, match="is no change id"):
        parse_change_id(text)
