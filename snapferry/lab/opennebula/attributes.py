"""OpenNebula's template text (`NAME=VALUE`, `NAME=[A=1,B="x"]`, or XML) and how it comes back as XML.

Names are upper-cased and come back sorted, a vector's own names too; repeated names keep their order.
"""

import re
from collections.abc import Iterator
from typing import Self
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from snapferry.lab.opennebula.errors import Code, OneError

Vector = dict[str, str]
Value = str | Vector

_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LINE = re.compile(r"[^\n]*")
_VECTOR_WORD = re.compile(r"[^,\]\n]*")
_BLANK = re.compile(r"\s*")
_SPACE = re.compile(r"[ \t]*")


def cdata(tag: str, text: object) -> str:
    """One element whose text stands in a CDATA section."""
    return f"<{tag}><![CDATA[{text}]]></{tag}>"


def plain(tag: str, text: object) -> str:
    """One element with plain text."""
    return f"<{tag}>{escape(str(text))}</{tag}>"


class Attributes:
    """The attributes of one object: single values and vectors, names may repeat."""

    def __init__(self, items: list[tuple[str, Value]] | None = None) -> None:
        self._items: list[tuple[str, Value]] = list(items or [])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a template, text or XML.

        Raises:
            OneError: INTERNAL, with the parser's message.
        """
        stripped = text.lstrip()
        items = _parse_xml(stripped) if stripped.startswith("<") else _TextParser(text).items()
        if any("]]>" in part for _, value in items for part in ([value] if isinstance(value, str) else value.values())):
            raise _malformed()
        return cls(items)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self._items)

    def copy(self) -> "Attributes":
        return Attributes([(name, dict(v) if isinstance(v, dict) else v) for name, v in self._items])

    def get(self, name: str) -> str | None:
        """The last single value of that name."""
        return next((v for n, v in reversed(self._items) if n == name and isinstance(v, str)), None)

    def vector(self, name: str) -> Vector | None:
        """The first vector of that name."""
        return next(iter(self.vectors(name)), None)

    def vectors(self, name: str) -> list[Vector]:
        return [v for n, v in self._items if n == name and isinstance(v, dict)]

    def add(self, name: str, value: Value) -> None:
        self._items.append((name, value))

    def set(self, name: str, value: Value) -> None:
        """Replaces every attribute of that name by one."""
        self.remove(name)
        self.add(name, value)

    def remove(self, *names: str) -> None:
        self._items = [item for item in self._items if item[0] not in names]

    def merge(self, other: "Attributes") -> None:
        """What an update in mode 1 does: each name that `other` has is replaced whole; an empty vector deletes it."""
        self.remove(*{name for name, _ in other})
        self._items.extend((name, value) for name, value in other if value != {})

    def without_empty(self) -> "Attributes":
        return Attributes([(name, value) for name, value in self._items if value != {}])

    def xml(self, tag: str) -> str:
        """The element, as the frontend renders it."""
        parts = []
        for name, value in sorted(self._items, key=lambda item: item[0]):
            if isinstance(value, str):
                parts.append(cdata(name, value))
            else:
                inner = "".join(cdata(key, value[key]) for key in sorted(value))
                parts.append(f"<{name}>{inner}</{name}>")
        return f"<{tag}>{''.join(parts)}</{tag}>"

    def plain(self) -> dict[str, object]:
        """For comparisons: names to a value, or to a list where a name repeats."""
        found: dict[str, list[Value]] = {}
        for name, value in self._items:
            found.setdefault(name, []).append(value)
        return {name: values[0] if len(values) == 1 else values for name, values in sorted(found.items())}


def _malformed() -> OneError:
    return OneError(Code.INTERNAL, "Parse error: XML Template malformed.")


def _parse_xml(text: str) -> list[tuple[str, Value]]:
    try:
        root = ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError as error:
        raise _malformed() from error
    items: list[tuple[str, Value]] = []
    for child in root:
        if len(child):
            items.append((child.tag.upper(), {part.tag.upper(): part.text or "" for part in child}))
        else:
            items.append((child.tag.upper(), child.text or ""))
    return items


class _TextParser:
    """`NAME=VALUE` lines; a value is quoted, a vector, or the rest of its line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def items(self) -> list[tuple[str, Value]]:
        found: list[tuple[str, Value]] = []
        while self._skip():
            name = self._name("VARIABLE")
            self._expect("=", "EQUAL or EQUAL_EMPTY")
            found.append((name, self._value()))
        return found

    def _skip(self) -> bool:
        """Passes blanks and comments; False at the end."""
        while True:
            self._match(_BLANK)
            if self.text[self.at : self.at + 1] != "#":
                return self.at < len(self.text)
            self._match(_LINE)

    def _value(self) -> Value:
        self._match(_SPACE)
        if self.text[self.at : self.at + 1] == "[":
            return self._vector()
        quoted = _QUOTED.match(self.text, self.at)
        if quoted and not _LINE.match(self.text, quoted.end())[0].strip():  # type: ignore[index]
            self.at = quoted.end()
            return _unquote(quoted[1])
        return self._match(_LINE).strip()

    def _vector(self) -> Vector:
        self.at += 1
        vector: Vector = {}
        self._match(_BLANK)
        if self.text[self.at : self.at + 1] == "]":
            self.at += 1
            return vector
        while True:
            name = self._name("VARIABLE")
            self._expect("=", "EQUAL or EQUAL_EMPTY")
            self._match(_SPACE)
            quoted = _QUOTED.match(self.text, self.at)
            if quoted:
                self.at = quoted.end()
                vector[name] = _unquote(quoted[1])
            else:
                vector[name] = self._match(_VECTOR_WORD).strip()
            self._match(_BLANK)
            sign = self.text[self.at : self.at + 1]
            if sign not in (",", "]"):
                raise self._unexpected("COMMA or CBRACKET")
            self.at += 1
            if sign == "]":
                return vector

    def _name(self, expected: str) -> str:
        self._match(_BLANK)
        name = self._match(_NAME)
        if not name:
            raise self._unexpected(expected)
        return name.upper()

    def _expect(self, sign: str, expected: str) -> None:
        self._match(_SPACE)
        if self.text[self.at : self.at + 1] != sign:
            raise self._unexpected(expected)
        self.at += 1

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            return ""
        self.at = found.end()
        return found[0]

    def _unexpected(self, expected: str) -> OneError:
        word = _NAME.match(self.text, self.at)
        what = "VARIABLE" if word else "end of file" if self.at >= len(self.text) else f"'{self.text[self.at]}'"
        line = self.text.count("\n", 0, self.at)
        first, last = self.at + 1, word.end() if word else self.at + 1
        message = f"syntax error, unexpected {what}, expecting {expected} at line {line}, columns {first}:{last + 1}"
        return OneError(Code.INTERNAL, f"Parse error: {message}")


def _unquote(text: str) -> str:
    return text.replace('\\"', '"').replace("\\\\", "\\")
