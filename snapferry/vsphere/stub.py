"""The connection below a session: an API version that both sides know, and a login that renews itself.

pyVmomi's `SessionOrientedStub` isn't used: on a socket error it sends any call again, up to four times, so a snapshot
could be made twice (seen with pyVmomi 9.1.1).
"""

import re
import ssl
from collections.abc import Callable
from http.client import HTTPSConnection
from threading import Lock
from typing import Any

from pyVmomi import SoapStubAdapter, vim
from pyVmomi.SoapAdapter import StubAdapterBase
from pyVmomi.VmomiSupport import GetServiceVersions, versionIdMap

from snapferry.errors import SourceError

IDLE_CONNECTION_SECONDS = 10
"""An idle connection is not used again after this time: a server that closed it in between would make a call that must
not be sent twice fail without need."""


def agreed_version(host: str, port: int, context: ssl.SSLContext, timeout_seconds: float) -> str:
    """The newest vim25 version that pyVmomi and the server both know.

    Raises:
        SourceError: no vSphere API answers there.
        OSError, http.client.HTTPException: the connection failed.
    """
    connection = HTTPSConnection(host, port, context=context, timeout=timeout_seconds)
    try:
        connection.request("GET", "/sdk/vimServiceVersions.xml")
        response = connection.getresponse()
        body = response.read(1 << 20).decode("utf-8", "replace")
    finally:
        connection.close()
    vim25 = re.search(r"<name>urn:vim25</name>(.*?)</namespace>", body, re.DOTALL)
    offered = set(re.findall(r"<version>\s*([^<\s]+)\s*</version>", vim25[1])) if vim25 else set()
    for version in GetServiceVersions("vim25"):
        if versionIdMap[version] in offered:
            return str(version)
    raise SourceError(
        f"{host}:{port} answers, but it isn't a vCenter that pyVmomi can talk to (HTTP {response.status}).",
        "Give host and port of vCenter's API, usually 443.",
    )


def open_stub(host: str, port: int, version: str, context: ssl.SSLContext, timeout_seconds: float) -> SoapStubAdapter:
    """A connection pool without a login."""
    return SoapStubAdapter(
        host,
        port,
        version=version,
        sslContext=context,
        httpConnectionTimeout=timeout_seconds,
        connectionPoolTimeout=IDLE_CONNECTION_SECONDS,
        poolSize=16,
    )


class RenewingStub(StubAdapterBase):  # type: ignore[misc]
    """A stub whose login is renewed once when a call meets an expired session; nothing else is ever sent twice.

    Objects bound to it stay good across logins. Every login has connections and a cookie of its own, so that a late
    answer of the old session can't replace the new one's cookie.
    """

    def __init__(self, version: str, login: Callable[[], SoapStubAdapter]) -> None:
        super().__init__(version=version)
        self._login = login
        self._lock = Lock()
        self._inner: SoapStubAdapter | None = None

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:
        """Calls a method; pyVmomi's name."""
        inner = self._logged_in(None)
        status, answer = inner.InvokeMethod(mo, info, args, self)
        if status != 200 and isinstance(answer, vim.fault.NotAuthenticated):
            inner = self._logged_in(inner)
            status, answer = inner.InvokeMethod(mo, info, args, self)
        if status == 200:
            return answer
        raise answer

    def close(self, session_manager: str) -> None:
        """Logs out where a login is open; the next call logs in again."""
        with self._lock:
            inner, self._inner = self._inner, None
        if inner is None:
            return
        try:
            vim.SessionManager(session_manager, inner).Logout()
        finally:
            inner.DropConnections()

    def _logged_in(self, expired: SoapStubAdapter | None) -> SoapStubAdapter:
        """The current login's stub; a new one where there is none, or only the one that a caller saw expire."""
        with self._lock:
            if self._inner is None or self._inner is expired:
                fresh = self._login()
                if self._inner is not None:
                    self._inner.DropConnections()
                self._inner = fresh
            return self._inner
