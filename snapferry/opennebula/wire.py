"""pyone's XML-RPC proxy with our own request below it and our own reading above it.

A module of its own because importing pyone takes a third of a second.
"""

from collections.abc import Callable
from typing import Any
from xmlrpc.client import ServerProxy

from pyone.server_xrpc import OneServerXRPC, RequestsTransport


class _Transport(RequestsTransport):  # type: ignore[misc]
    """pyone's transport; `post` does the request."""

    def __init__(self, endpoint: str, post: Callable[[str, bytes, dict[str, str]], bytes]) -> None:
        super().__init__()
        self.set_https(endpoint.startswith("https"))
        self._post = post

    def request(self, host: str, handler: str, request_body: bytes, verbose: bool = False) -> Any:
        body = self._post(self._build_url(host, handler), request_body, dict(self.headers))
        parser, unmarshaller = self.getparser()
        parser.feed(body)
        parser.close()
        return unmarshaller.close()


class Server(OneServerXRPC):  # type: ignore[misc]
    """pyone's server: names methods `one.…` and puts the session in front."""

    def __init__(self, endpoint: str, session: str, post: Callable[[str, bytes, dict[str, str]], bytes]) -> None:
        super().__init__(endpoint, session)
        self._ServerProxy__transport = _Transport(endpoint, post)

    def ask(self, method: str, arguments: tuple[str | int | bool, ...]) -> Any:
        """The frontend's answer as it came: success, value, code, …"""
        return ServerProxy._ServerProxy__request(self, f"one.{method}", self._cast_parms(arguments))  # type: ignore[attr-defined]
