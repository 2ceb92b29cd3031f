"""OpenNebula's attributes: how they are written so that they come back as they were, and how they are read.

They are written as XML with CDATA, not as `NAME="value"` text: in text the lexer takes a backslash before the closing
quote for part of the value. What XML can't carry either is refused: the frontend stores each value in one CDATA section
unescaped, so `]]>` and control characters break the object, and it trims white space at both ends (Template.cc).
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from snapferry.opennebula.errors import BadName, NotRepresentable

Vector = Mapping[str, str]
Value = str | Vector | Sequence[Vector]
Attributes = Mapping[str, Value]
"""What an object gets: single values, vectors, and lists of vectors of one name (DISK, NIC)."""

Found = dict[str, str | dict[str, str] | list[dict[str, str]]]

MAX_VALUE_BYTES = 64 << 10  # some 10 MB in one object break every listing of its pool
MAX_NAME = 128

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TRIMMED = " \t\n\r\v\f"
_NOT_IN_NAMES = set("&|:\\\";/'#{}$<>")  # PoolObjectSQL's list


class Change(NamedTuple):
    """An update, parted into what is set and what is removed: they need two calls."""

    set: dict[str, Value]
    remove: tuple[str, ...]


def render(attributes: Attributes) -> str:
    """The attributes as XML; empty values are left out, since the frontend drops them anyway.

    Raises:
        NotRepresentable: a name or a value would not come back as it is.
    """
    seen: set[str] = set()
    parts = []
    for name, value in attributes.items():
        tag = _checked_name(name, seen)
        if isinstance(value, str):
            parts.append(_element(tag, value, tag) if value else "")
        else:
            vectors = [value] if isinstance(value, Mapping) else value
            parts.extend(_vector(tag, one) for one in vectors)
    return f"<TEMPLATE>{''.join(parts)}</TEMPLATE>"


def render_removal(names: Sequence[str]) -> str:
    """The text that removes attributes in an update that merges: `NAME=[ ]`."""
    seen: set[str] = set()
    return "".join(f"{_checked_name(name, seen)}=[ ]\n" for name in names)


def change(attributes: Attributes) -> Change:
    """Parts an update: an empty value, or a vector of nothing but empty values, is a removal."""
    gone = tuple(name for name, value in attributes.items() if _is_empty(value))
    return Change({name: value for name, value in attributes.items() if name not in gone}, gone)


def check_value(value: str, where: str) -> None:
    """Raises NotRepresentable where a value would not come back as it is."""
    problem = ""
    if "]]>" in value:
        problem = "it holds ]]>"
    elif odd := next((char for char in value if char not in "\t\n" and not _is_xml(char)), None):
        problem = f"it holds the character U+{ord(odd):04X}"
    elif value != value.strip(_TRIMMED):
        problem = "it begins or ends with white space"
    elif len(value.encode()) > MAX_VALUE_BYTES:
        problem = f"it is longer than {MAX_VALUE_BYTES} bytes"
    if problem:
        raise NotRepresentable(f"{where} can't be kept in OpenNebula: {problem}.", "Put the value in base64.")


def check_name(name: str) -> str:
    """The name again, where an object may have it.

    Raises:
        BadName: it is empty, too long or holds a character that OpenNebula refuses.
    """
    bad = next((char for char in name if char in _NOT_IN_NAMES or not _is_xml(char)), None)
    if not name.strip() or name != name.strip() or len(name) > MAX_NAME or bad:
        reason = f"it holds {bad!r}" if bad else f"it needs 1 to {MAX_NAME} characters without blanks at its ends"
        raise BadName(f"OpenNebula takes no object named {name!r}: {reason}.", "Give the plan another `target_name`.")
    return name


def clean_text(text: str, most_bytes: int = 4096) -> str:
    """Text for people, changed as little as it takes for OpenNebula to keep it."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    plain = "".join(char for char in plain if char in "\t\n" or _is_xml(char))
    while "]]>" in plain:
        plain = plain.replace("]]>", "]] >")
    return plain.encode()[:most_bytes].decode(errors="ignore").strip(_TRIMMED)


def read_attributes(element: Element | None) -> Found:
    """The attributes of a TEMPLATE or USER_TEMPLATE element; a repeated vector becomes a list."""
    found: Found = {}
    for child in element if element is not None else ():
        value: str | dict[str, str] = {part.tag: part.text or "" for part in child} if len(child) else child.text or ""
        before = found.get(child.tag)
        if isinstance(before, list) and isinstance(value, dict):
            before.append(value)
        elif isinstance(before, dict) and isinstance(value, dict):
            found[child.tag] = [before, value]
        else:
            found[child.tag] = value
    return found


def holds(found: Mapping[str, object], wanted: Attributes) -> bool:
    """Whether an object has all the wanted attributes; empty and absent are the same."""
    return all(_same(found.get(name.upper(), ""), value) for name, value in wanted.items())


def _same(one: object, other: object) -> bool:
    if isinstance(one, Mapping) or isinstance(other, Mapping):
        return _without_empty(one) == _without_empty(other)
    return one == other


def _without_empty(value: object) -> dict[str, str]:
    return {name.upper(): text for name, text in value.items() if text} if isinstance(value, Mapping) else {}


def _vector(tag: str, vector: Vector) -> str:
    seen: set[str] = set()
    inner = "".join(
        _element(_checked_name(name, seen), value, f"{tag}/{name}") for name, value in vector.items() if value
    )
    return f"<{tag}>{inner}</{tag}>" if inner else ""


def _element(tag: str, value: str, where: str) -> str:
    check_value(value, where)
    return f"<{tag}><![CDATA[{value}]]></{tag}>"


def _checked_name(name: str, seen: set[str]) -> str:
    upper = name.upper()
    if not _NAME.fullmatch(name) or upper in seen:
        reason = "stands there twice" if upper in seen else "is no name of an attribute"
        raise NotRepresentable(f"{name!r} {reason}.", "Use letters, digits and underscores.")
    seen.add(upper)
    return upper


def _is_empty(value: Value) -> bool:
    if isinstance(value, Mapping):
        return not any(value.values())
    return not value


def _is_xml(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cs") and char not in "\ufffe\uffff"
