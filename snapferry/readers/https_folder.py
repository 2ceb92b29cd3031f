"""A datastore over HTTPS: its files by range, as vCenter and hosts serve them below `/folder`.

Facts: `https://<host>/folder/<path>?dcPath=<inventory path of the datacenter>&dsName=<datastore>`; Basic authentication
once, then vCenter's cookie `vmware_soap_session`, which ends after 30 idle minutes; a server that gives no cookie, as a
lone ESXi host may, gets Basic authentication with each request; 500 for the extents of a running VM that
VMFS 6 locks; 500, 503 and cut connections now and then (seen in the field).
"""

import base64
import contextlib
import http.client
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from http.cookies import CookieError, SimpleCookie
from threading import Event, Lock
from typing import Final
from urllib.parse import quote, urlencode

from snapferry.errors import Stopped
from snapferry.readers.errors import (
    DatastoreError,
    DatastoreLocked,
    DatastoreRefused,
)
from snapferry.readers.https_connection import LEAST_BYTES, HttpsConnection
from snapferry.transfer import Extents
from snapferry.vmdk import ChainError
from snapferry.vmdk.files import on_datastore
from snapferry.vsphere.models import FolderAccess

BACKOFF_SECONDS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
RENEW_SECONDS: Final = 1200.0
"""A cookie that wasn't used for so long is not used again: hosts forget it after 1800 s."""
_COOKIE: Final = "vmware_soap_session"
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_LONGEST_LINE: Final = 1 << 20
_LOCK_TRIES: Final = 2
_PIECE_BYTES: Final = 64 << 10
"""So much of a range is asked of the connection at once: what of it had come is lost where it breaks."""


class _Again(Exception):
    """The request didn't get through; the same one may the next time."""


class HttpsFolder:
    """One datastore's files; used by any number of threads, each request on a connection of its own.

    Args:
        access: where the datastore is served, and who asks.
        timeout_seconds: how long the server may be silent.
        backoff_seconds: waits between the attempts of a request that gets nowhere; behind the last it is given up.
    """

    def __init__(
        self, access: FolderAccess, *, timeout_seconds: float = 30, backoff_seconds: Sequence[float] = BACKOFF_SECONDS
    ) -> None:
        self._access = access
        self._timeout = timeout_seconds
        self._backoff = tuple(backoff_seconds)
        self._lock = Lock()
        self._idle: list[HttpsConnection] = []
        self._all: set[HttpsConnection] = set()
        self._cookie = ""
        self._used = 0.0
        self._answered = 0
        self._ended = Event()

    def open(self, path: str) -> "HttpsFile":
        """Opens a file by its path on the datastore.

        Raises:
            ChainError: there is no such file, or the path leaves the datastore.
            DatastoreLocked: its host doesn't give it away, because a VM runs on it.
            DatastoreError: it can't be read.
        """
        place = on_datastore(path)
        if place.startswith(".."):
            raise ChainError(f"{path!r} lies outside of the datastore.")
        access = self._access
        query = urlencode({"dcPath": access.datacenter, "dsName": access.datastore})
        file = HttpsFile(self, f"/folder/{quote(place)}?{query}", f"[{access.datastore}] {place}")
        file.measure()
        return file

    def answers(self) -> int:
        return self._answered

    def close(self) -> None:
        """Cuts every connection; whoever waits for one is told."""
        self._ended.set()
        with self._lock:
            idle, self._idle = self._idle, []
            busy, self._all = self._all.difference(idle), set()
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.cut()  # its thread closes it

    def get(self, target: str, name: str, first: int, last: int, view: memoryview | None) -> int:
        """Reads bytes `first` to `last` of a file into the view, over as many attempts as that needs.

        Args:
            target: the URL's path and query.
            name: for messages.
            view: as long as the range; None where only the size is wanted.

        Returns:
            The file's size in bytes.

        Raises:
            DatastoreError: it can't be read.
            Stopped: the folder was closed.
        """
        at, failures, locked = first, 0, 0
        while True:
            request = _Request(target, name, at, last)
            try:
                with self._connection() as connection:
                    cookie = self._login()
                    request.send(connection, self._headers(cookie))
                    self._keep_cookie(cookie, request)
                    size = request.receive(None if view is None else view[at - first :])
                    self._answered += 1
                    return size
            except DatastoreLocked:
                locked += 1
                if locked >= _LOCK_TRIES:
                    raise
                failures += 1
            except (_Again, OSError, http.client.HTTPException) as error:
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise self._untrusted(error) from error
                failures = 1 if request.received >= LEAST_BYTES else failures + 1
                at += request.received
                if failures > len(self._backoff):
                    cause = f"{name} can't be read at byte {at}: {_reason(error)}."
                    raise DatastoreError(cause, "Look at the host's log; the copy goes on by another route.") from error
            if self._ended.wait(self._backoff[min(failures, len(self._backoff)) - 1]):
                raise Stopped("The read was told to stop.")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[HttpsConnection]:
        """A connection for one request; one that broke isn't used again."""
        access = self._access
        with self._lock:  # whoever closes the folder sets the event first, and then finds every connection here
            if self._ended.is_set():
                raise Stopped("The read was told to stop.")
            if self._idle:
                connection = self._idle.pop()
            else:
                connection = HttpsConnection(access.host, access.port, access.tls, self._timeout)
                self._all.add(connection)
        try:
            yield connection
        except BaseException:
            with self._lock:
                self._all.discard(connection)
            connection.close()
            if self._ended.is_set():
                raise Stopped("The read was told to stop.") from None
            raise
        with self._lock:
            if not self._ended.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def _login(self) -> str:
        """The cookie of this login; empty where there is none, or it may have ended."""
        with self._lock:
            return self._cookie if time.monotonic() - self._used < RENEW_SECONDS else ""

    def _headers(self, cookie: str) -> dict[str, str]:
        """With the cookie; else with the password."""
        if cookie:
            return {"Cookie": f"{_COOKIE}={cookie}"}
        pair = f"{self._access.user}:{self._access.password.get_secret_value()}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def _keep_cookie(self, sent: str, request: "_Request") -> None:
        """Notes the login that an answer brought; forgets the one that it refused.

        Raises:
            DatastoreRefused: the password itself was refused.
        """
        with self._lock:
            if request.status != http.client.UNAUTHORIZED:
                self._cookie, self._used = request.cookie or self._cookie, time.monotonic()
                return
            if sent == self._cookie:  # else another request has logged in meanwhile
                self._cookie = ""
        if not sent:
            access = self._access
            raise DatastoreRefused(
                f"{access.host}:{access.port} refuses {access.user} on the datastore {access.datastore}.",
                "Give that user Datastore.Browse and Datastore.FileManagement on it, or take another route.",
            )
        raise _Again("the session had ended")

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> DatastoreRefused:
        access = self._access
        return DatastoreRefused(
            f"The certificate of {access.host}:{access.port} isn't trusted: {error.verify_message.rstrip('.')}.",
            "Give the CA that signed it. No password was sent.",
        )


class HttpsFile:
    """One file of an `HttpsFolder`."""

    def __init__(self, folder: HttpsFolder, target: str, name: str) -> None:
        self.name = name
        self.size_bytes = 0
        self._folder = folder
        self._target = target

    def measure(self) -> None:
        """Asks for the file's first byte, whose answer tells the size."""
        self.size_bytes = self._folder.get(self._target, self.name, 0, 0, None)

    def read(self, offset: int, length: int) -> memoryview:
        """The bytes of the range."""
        whole = memoryview(bytearray(length))
        self.read_into(offset, whole)
        return whole

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fills the view with the bytes from the offset on.

        Raises:
            DatastoreError: they can't be read, or the file isn't what it was.
        """
        if not view:
            return
        size = self._folder.get(self._target, self.name, offset, offset + len(view) - 1, view)
        if size != self.size_bytes:
            raise DatastoreError(f"{self.name} had {self.size_bytes} bytes and has {size} now: {_WRITTEN}", _FROZEN)

    def data_extents(self) -> Extents:
        """All of it: a server doesn't tell where a file has holes."""
        return Extents.whole(self.size_bytes)

    def abort(self) -> None:
        """Ends every read of the whole folder."""
        self._folder.close()

    def close(self) -> None:
        """Nothing is held open for a file."""


class _Request:
    """One GET of a range, and how far its answer got."""

    def __init__(self, target: str, name: str, first: int, last: int) -> None:
        self._target = target
        self._name = name
        self._first = first
        self._last = last
        self._response: http.client.HTTPResponse | None = None
        self.status = 0
        self.cookie = ""
        self.received = 0

    def send(self, connection: HttpsConnection, headers: dict[str, str]) -> None:
        """Sends it and reads the answer's head."""
        headers = {"Range": f"bytes={self._first}-{self._last}", "Accept-Encoding": "identity", **headers}
        connection.request("GET", self._target, headers=headers)
        self._response = connection.getresponse()
        self.status = self._response.status
        with contextlib.suppress(CookieError):
            found = SimpleCookie(self._response.getheader("Set-Cookie") or "").get(_COOKIE)
            self.cookie = found.value if found else ""

    def receive(self, view: memoryview | None) -> int:
        """Receives the body into the view; the file's size.

        Raises:
            DatastoreError: the answer is another one than was asked for.
            _Again: it is one that may be better the next time.
        """
        assert self._response
        size = self._check()
        if view is None or not size:
            self._response.read(_LONGEST_LINE)
            return size
        while self.received < len(view):
            count = self._response.readinto(view[self.received : self.received + _PIECE_BYTES])
            if not count:
                raise _Again("the answer ended before the range did")
            self.received += count
        return size

    def _check(self) -> int:
        """The file's size, from an answer that is what was asked for."""
        assert self._response
        name = self._name
        match self.status:
            case http.client.PARTIAL_CONTENT:
                found = _RANGE.fullmatch(self._response.getheader("Content-Range") or "")
                length = self._response.length
                exact = length == self._last - self._first + 1  # more would be taken for the next answer
                if found and (int(found[1]), int(found[2])) == (self._first, self._last) and exact:
                    return int(found[3])
                told = f"{self._response.getheader('Content-Range')!r} with {length} bytes"
                raise DatastoreError(f"{name}: asked for {self._first}-{self._last}, the server answers {told}.", _ODD)
            case http.client.REQUESTED_RANGE_NOT_SATISFIABLE if self._first == 0:
                return 0
            case http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise DatastoreError(f"{name} ends before byte {self._first} now: {_WRITTEN}", _FROZEN)
            case http.client.OK if self._response.length == 0:  # how nginx answers for an empty file
                return 0
            case http.client.OK:
                raise DatastoreError(f"{name}: the server sends whole files only, not ranges.", _ODD)
            case http.client.NOT_FOUND:
                raise ChainError(f"There is no file {name} on the datastore.")
            case http.client.INTERNAL_SERVER_ERROR if self._first == 0:
                raise DatastoreLocked(
                    f"{name} isn't given away (status 500): a running VM has it open.",
                    "VMFS 6 locks every file of a running VM: read it through NFC, or switch the VM off.",
                )
            case status if 300 <= status < 400:
                raise DatastoreError(f"{name}: the server points elsewhere (status {status}); nobody follows.", _ODD)
            case status:
                raise _Again(f"status {status}")


_WRITTEN: Final = "somebody writes to it."
_FROZEN: Final = "Read a frozen file: take a snapshot, or switch the VM off."
_ODD: Final = "Look what answers at that address; the copy goes on by another route."


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
