"""How a call reaches the function that answers it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snapferry.lab.vcenter.sessions import Session
from snapferry.lab.vcenter.soap import MethodInfo

if TYPE_CHECKING:
    from snapferry.lab.vcenter.service import VCenter


@dataclass
class Call:
    """One authenticated and authorised call."""

    vcenter: "VCenter"
    method: str
    info: MethodInfo
    this: Any
    session: Session | None
    """None only for the few methods that need no login."""
    arguments: dict[str, Any]
    opened: Session | None = field(default=None)
    """Set by Login: the session that the reply's cookie names."""

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the default where the client left it out."""
        value = self.arguments.get(name)
        return default if value is None else value

    @property
    def user(self) -> Session:
        """The session; every method but the anonymous ones has one."""
        assert self.session is not None
        return self.session


Handler = Callable[[Call], Any]

HANDLERS: dict[str, Handler] = {}
"""WSDL method name -> the function that answers it."""


def answers(*methods: str) -> Callable[[Handler], Handler]:
    """Registers a function for WSDL methods."""

    def register(handler: Handler) -> Handler:
        for method in methods:
            assert method not in HANDLERS, f"{method} is answered twice"
            HANDLERS[method] = handler
        return handler

    return register
