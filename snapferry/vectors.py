"""How a record is written: vectors of text in an object's attributes, anything odd in base64."""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, Self


class Vector:
    """One of our vectors in an object's attributes: text values, anything odd in base64."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    @classmethod
    def of(cls, attributes: Mapping[str, Any], name: str) -> Self | None:
        """The vector of that name, None where there is none."""
        found = attributes.get(name)
        return cls({key.upper(): value or "" for key, value in found.items()}) if isinstance(found, Mapping) else None

    def get(self, name: str, default: str = "") -> str:
        """A plain value."""
        return self._values.get(name, default)

    def number(self, name: str) -> int | None:
        """A whole number, None where there is none."""
        text = self.get(name)
        return int(text) if text else None

    def packed(self, name: str) -> Any:
        """A value that `pack` made; None where there is none."""
        text = self.get(name)
        return json.loads(zlib.decompress(base64.b64decode(text, validate=True))) if text else None


def pack(value: Any) -> str:
    """Any JSON value as text that survives every quoting: base64 of compressed JSON."""
    return base64.b64encode(zlib.compress(json.dumps(value).encode(), 9)).decode()
