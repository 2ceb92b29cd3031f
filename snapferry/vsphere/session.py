"""A login to vCenter that renews itself and names what goes wrong."""

import logging
import re
from collections.abc import Callable
from datetime import datetime
from http.client import HTTPException
from ssl import SSLCertVerificationError, SSLContext
from threading import Event, Lock
from types import TracebackType
from typing import Any, Self, TypeVar
from xml.parsers.expat import ExpatError

from pydantic import Field, SecretStr, field_validator
from pyVmomi import SoapStubAdapter, vim, vmodl

from snapferry.errors import SnapferryError
from snapferry.plan import Frozen
from snapferry.vsphere import faults, trust, waits
from snapferry.vsphere.errors import Unreachable
from snapferry.vsphere.stub import RenewingStub, agreed_version, open_stub

log = logging.getLogger(__name__)
T = TypeVar("T")

BROKEN = (OSError, HTTPException, ExpatError)
"""What a broken connection, or an answer cut short, looks like."""
RETRY_SECONDS = (0.5, 2.0, 5.0)
"""Pauses before a repeatable call is sent again over a new connection."""


class VCenterLogin(Frozen):
    """Where vCenter is, who logs in, and which certificate is trusted."""

    host: str = Field(min_length=1)
    """Host name or address, without scheme and path."""
    port: int = Field(443, ge=1, le=65535)
    user: str = Field(min_length=1)
    password: SecretStr
    ca_pem: str | None = None
    """Certificate of the CA that signed vCenter's, as PEM text; the system's CAs by default."""
    certificate_sha256: str | None = None
    """SHA-256 of vCenter's own certificate (`AA:BB:…`); then this certificate alone is accepted, whoever signed it."""
    verify: bool = True
    """False switches verification off (unless a certificate is pinned); loud, for a try in a lab."""
    timeout_seconds: float = Field(60, gt=0)
    """How long vCenter may take for an answer."""

    model_config = Frozen.model_config | {"hide_input_in_errors": True}

    @field_validator("host")
    @classmethod
    def _bare(cls, host: str) -> str:
        if "/" in host or "@" in host:
            raise ValueError("give the host name alone, without https:// and path")
        return host.strip()

    @field_validator("certificate_sha256")
    @classmethod
    def _digits(cls, text: str | None) -> str | None:
        digits = re.sub(r"[:\s-]", "", text or "").lower()
        if digits and not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise ValueError("a SHA-256 has 64 hexadecimal digits, with or without colons")
        return digits or None


class Session:
    """One login to vCenter, used by any number of threads; connects on first use.

    Errors of every call: WrongPassword, CertificateNotTrusted, MissingPrivilege (all before anything was changed),
    Unreachable, VmGone, and SourceError for the rest.
    """

    def __init__(self, login: VCenterLogin) -> None:
        self.login = login
        self._lock = Lock()
        self._stub: RenewingStub | None = None
        self._content: Any = None
        self._key = ""
        self._facts: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Session({self.login.user} at {self.login.host}:{self.login.port})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def content(self) -> Any:
        """vCenter's service content; logs in where that wasn't done yet."""
        with self._lock:
            if self._content is None:
                self._content = self._guarded("log in", self._connect, lambda thing: str(thing._moId))
            return self._content

    @property
    def about(self) -> Any:
        """What the server says of itself."""
        return self.content.about

    @property
    def vcenter_uuid(self) -> str:
        """Identity of this vCenter."""
        return str(self.about.instanceUuid or "")

    @property
    def version(self) -> str:
        """Product version, such as `8.0.3`."""
        return str(self.about.version)

    @property
    def key(self) -> str:
        """vCenter's key of the current login; changes when it is renewed."""
        assert self.content
        return self._key

    def bind(self, kind: Any, moref: str) -> Any:
        """The managed object of this type and id on this session; no call is made."""
        assert self.content
        return kind(moref, self._stub)

    def call(self, what: str, fn: Callable[[], T], *, repeatable: bool = False) -> T:
        """Runs pyVmomi calls; an expired session is renewed once below it, faults become named errors.

        Args:
            what: what is done, as `read the inventory`; it stands in the error.
            fn: makes the calls, on objects of `bind`.
            repeatable: whether `fn` may run again over a new connection when one breaks; only for calls that change
                nothing, because the first may have arrived.
        """
        assert self.content
        pauses = RETRY_SECONDS if repeatable else ()
        for pause in pauses:
            try:
                return self._guarded(what, fn, self.name_of)
            except Unreachable as error:
                if not isinstance(error.__cause__, BROKEN):
                    raise
                log.warning("Couldn't %s, trying again: %s", what, error.cause)
                Event().wait(pause)
        return self._guarded(what, fn, self.name_of)

    def remembered(self, name: str, ask: Callable[["Session"], T]) -> T:
        """What `ask` answered first; for facts of the server that don't change while it runs."""
        if name not in self._facts:
            self._facts[name] = ask(self)
        fact: T = self._facts[name]
        return fact

    def wait(self, task: Any, timeout_seconds: float, what: str) -> Any:
        """Waits for a task and returns its result.

        Raises:
            TaskFailed: it ended with an error that has no name of its own; NotInTime if it still runs.
        """
        return waits.wait_for_task(self, task, timeout_seconds, what)

    def keep_alive(self) -> datetime:
        """Touches the session so that it doesn't expire (vCenter's default: 30 minutes idle); vCenter's time."""
        instance = self.bind(vim.ServiceInstance, "ServiceInstance")
        now: datetime = self.call("tell its time", instance.CurrentTime, repeatable=True)
        return now

    def tls_context(self) -> SSLContext:
        """A context that accepts this vCenter's certificate only; asks for it first where it is pinned.

        Raises:
            CertificateNotTrusted: it isn't the pinned one.
            Unreachable: vCenter didn't answer.
        """
        login = self.login
        return trust.tls_context(
            login.host,
            login.port,
            ca_pem=login.ca_pem,
            certificate_sha256=login.certificate_sha256,
            verify=login.verify,
            timeout_seconds=login.timeout_seconds,
        )

    def close(self) -> None:
        """Logs out; a later call logs in again."""
        with self._lock:
            stub, content = self._stub, self._content
            self._stub = self._content = None
        if stub is None or content is None:
            return
        try:
            stub.close(content.sessionManager._moId)
        except (vmodl.MethodFault, *BROKEN) as error:
            log.info("The session at %s ends by itself: %s", self.login.host, type(error).__name__)

    def name_of(self, thing: Any) -> str:
        """Name of a managed object for a message; its moref where it has none or it can't be read."""
        try:
            return f"{self.bind(vim.ManagedEntity, thing._moId).name} ({thing._moId})"
        except (vmodl.MethodFault, AttributeError, TypeError, *BROKEN):
            return str(thing._moId)

    def _connect(self) -> Any:
        """Finds the version, logs in, and reads the service content."""
        login, context = self.login, self.tls_context()
        version = agreed_version(login.host, login.port, context, login.timeout_seconds)

        def log_in() -> SoapStubAdapter:
            raw = open_stub(login.host, login.port, version, context, login.timeout_seconds)
            manager: Any = vim.ServiceInstance("ServiceInstance", raw).RetrieveContent().sessionManager
            self._key = manager.Login(login.user, login.password.get_secret_value(), None).key
            log.info("Logged in to %s as %s", login.host, login.user)
            return raw

        self._stub = RenewingStub(version, log_in)
        return vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()

    def _guarded(self, what: str, fn: Callable[[], T], name_of: Callable[[Any], str]) -> T:
        """Runs `fn` and names what it raises."""
        login = self.login
        try:
            return fn()
        except SnapferryError:
            raise
        except vmodl.MethodFault as fault:
            raise faults.named(what, fault, name_of) from fault
        except SSLCertVerificationError as error:
            raise trust.not_trusted(login.host, login.port, error, login.timeout_seconds) from error
        except BROKEN as error:
            raise trust.unreachable(login.host, login.port, error) from error
