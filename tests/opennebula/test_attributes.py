"""What goes into OpenNebula's attributes comes back as it was, or is refused by name."""

import base64
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.opennebula.attributes import (
    MAX_VALUE_BYTES,
    Found,
    Value,
    change,
    check_name,
    clean_text,
    holds,
    read_attributes,
    render,
    render_removal,
)
from snapferry.opennebula.errors import BadName, NotRepresentable

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
TEXTS = st.text(max_size=60) | st.sampled_from(
    ['a"b', "]]>", "a\\", "x]]", "l1\nl2", "[A=1,B=2]", "<X>&amp;</X>", "žluť"]
)
VECTORS = st.dictionaries(NAMES, TEXTS, max_size=4)


def _read(text: str) -> Found:
    """What the frontend's XML parser makes of it."""
    return read_attributes(ElementTree.fromstring(text))  # noqa: S314


def _kept(value: Value) -> Value:
    """What may come back: empty values are the same as none."""
    return value if isinstance(value, str) else {name: text for name, text in dict(value).items() if text}  # type: ignore[arg-type]


@given(st.dictionaries(NAMES, TEXTS | VECTORS, max_size=5))
def test_every_value_comes_back_as_it_was_or_is_refused(attributes: dict[str, str | dict[str, str]]) -> None:
    try:
        text = render(attributes)
    except NotRepresentable:
        return
    found = _read(text)
    assert found == {name: _kept(value) for name, value in attributes.items() if _kept(value)}


@given(st.text(max_size=200))
def test_base64_makes_any_value_representable(value: str) -> None:
    packed = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()
    assert _read(render({"BLOB": packed})).get("BLOB", "") == packed


@given(st.text(max_size=300), st.integers(1, 100))
def test_cleaned_text_is_always_representable(text: str, most: int) -> None:
    cleaned = clean_text(text, most)
    assert len(cleaned.encode()) <= most
    assert _read(render({"DESCRIPTION": cleaned})).get("DESCRIPTION", "") == cleaned


def test_cleaning_changes_no_more_than_it_has_to() -> None:
    assert clean_text('He said "no" & left\r\n<b>[x]</b>\x00 žluť ') == 'He said "no" & left\n<b>[x]</b> žluť'
    assert "]]>" not in clean_text("]]]>>]]>")


@pytest.mark.parametrize(
    "value", ["a]]>b", "a\x01b", " a", "a\n", "\rx\r", "\ud800", "\ufffe", "\x85x", "a" * (MAX_VALUE_BYTES + 1)]
)
def test_a_value_that_would_not_come_back_is_refused_with_its_name(value: str) -> None:
    with pytest.raises(NotRepresentable, match=r"MIG_KEY.*base64"):
        render({"MIG_KEY": value})
    with pytest.raises(NotRepresentable, match="MIG/KEY"):
        render({"MIG": {"KEY": value}})


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=", "Ä", "A]", "A\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(NotRepresentable):
        render({name: "1"})
    with pytest.raises(NotRepresentable):
        render_removal([name])


def test_names_that_become_the_same_in_upper_case_are_refused() -> None:
    with pytest.raises(NotRepresentable, match="twice"):
        render({"mig": "1", "MIG": "2"})


def test_several_vectors_of_one_name_come_back_in_their_order() -> None:
    disks = [{"IMAGE_ID": "7"}, {"IMAGE_ID": "3"}, {"IMAGE_ID": "5"}]
    assert _read(render({"DISK": disks})) == {"DISK": disks}


def test_an_update_removes_what_is_empty_and_sets_the_rest() -> None:
    parted = change({"A": "1", "B": "", "C": {}, "D": {"X": ""}, "E": {"X": "", "Y": "2"}, "F": []})
    assert parted.remove == ("B", "C", "D", "F")
    assert set(parted.set) == {"A", "E"}
    assert render_removal(parted.remove) == "B=[ ]\nC=[ ]\nD=[ ]\nF=[ ]\n"


def test_an_object_holds_attributes_whatever_the_case_and_the_empty_ones() -> None:
    found = {"SNAPFERRY": {"ID": "7"}, "OTHER": "x"}
    assert holds(found, {"snapferry": {"id": "7", "OWN_ID": ""}})
    assert not holds(found, {"SNAPFERRY": {"ID": "7", "OWN_ID": "1"}})
    assert not holds(found | {"SNAPFERRY": {"ID": "7", "OWN_ID": "1"}}, {"SNAPFERRY": {"ID": "7"}})


@pytest.mark.parametrize("name", ["", " ", "a/b", "a;b", "a'b", 'a"b', "a$b", "a{b", "a\nb", "x" * 129, "a "])
def test_a_name_that_no_object_may_have_is_refused_before_anything_is_done(name: str) -> None:
    with pytest.raises(BadName, match="target_name"):
        check_name(name)


def test_common_names_are_fine() -> None:
    for name in ("web01", "Web 01 (prod)", "db_1.example-a", "žluť"):
        assert check_name(name) == name
