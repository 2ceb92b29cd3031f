"""How a method is declared: what it takes, and who does it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from snapferry.lab.opennebula.errors import CallFault

Answer = str | int | bool

_TYPES = {"i": (int, "integer"), "b": (bool, "boolean"), "s": (str, "string")}


class Method(NamedTuple):
    """One method: types of its parameters after the session (`i`, `b`, `s`), how many must be there, and its function.

    The function gets the call, then the parameters.
    """

    takes: str
    needs: int
    run: Callable[..., Answer]

    def check(self, parameters: tuple[Any, ...]) -> list[Any]:
        """The parameters that the function gets; more than it takes are ignored.

        Raises:
            CallFault: too few, or one of another type.
        """
        if len(parameters) < self.needs:
            raise CallFault(-501, "Not enough parameters")
        for code, value in zip(self.takes, parameters, strict=False):
            kind, name = _TYPES[code]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise CallFault(-501, f"Parameter that is supposed to be {name} is not")
        return list(parameters[: len(self.takes)])


Methods = dict[str, Method]
