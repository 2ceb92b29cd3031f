"""Calls to the frontend: pyone's XML-RPC, with a timeout that is one and a certificate that is checked.

pyone 7.3.80 ignores its `timeout=` over XML-RPC, takes proxies from the environment and loses error codes; so its
transport is replaced and its answers are read here.
"""

import logging
import ssl
import time
import warnings
import xmlrpc.client
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter

from snapferry.errors import Refused
from snapferry.opennebula.errors import CallFailed, CertificateNotTrusted, Unreachable
from snapferry.opennebula.faults import named_error
from snapferry.plan import Frozen

log = logging.getLogger(__name__)

ONEADMIN_GROUP = 0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CHUNK = 64 << 10


class OpenNebulaLogin(Frozen):
    """Where the frontend is, and who asks it."""

    endpoint: str
    """`https://one.example.org:2634/RPC2`; a path of its own isn't needed."""
    user: str
    secret: SecretStr
    """Password or login token."""
    ca_pem: str | None = None
    """PEM of the CA that signed the frontend's certificate; the system's CAs by default."""
    verify: bool = True
    """False accepts any certificate, and says so loudly."""
    timeout_seconds: float = 30
    """How long one call may take to connect, to begin its answer, and to end it."""


class User(NamedTuple):
    """Who asks."""

    id: int
    name: str
    groups: tuple[int, ...]

    @property
    def is_admin(self) -> bool:
        """Whether the group oneadmin gives every right."""
        return ONEADMIN_GROUP in self.groups


class Client:
    """One frontend; a context manager that any number of threads may use. It connects at its first call.

    Raises:
        Refused: the endpoint or the user's name can't be one.
    """

    def __init__(self, login: OpenNebulaLogin) -> None:
        self._login = login
        self.endpoint = _checked_endpoint(login.endpoint)
        if ":" in login.user or not login.user:
            raise Refused(f"{login.user!r} can't be an OpenNebula user.", "Give the user's name without its password.")
        self._context = _tls_context(login, self.endpoint)
        self._server: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go; no connection outlives its call, so nothing has to be ended."""
        self._server = None

    def call(self, method: str, *arguments: str | int | bool) -> Any:
        """One call.

        Args:
            method: without `one.`, such as `image.info`.
            arguments: as the API has them, without the session.

        Returns:
            An `Element` where the frontend answers with XML, else its number or text.

        Raises:
            Unreachable: no answer in time; what was asked may have been done all the same.
            WrongPassword, CertificateNotTrusted, NotAllowed, NoSuchObject, NameTaken, Locked, NoSpace, CallFailed:
                as their names say.
        """
        answer = self._ask(method, arguments)
        if not isinstance(answer, list | tuple) or len(answer) < 3:
            raise self._not_opennebula(method, f"{type(answer).__name__} instead of its three values")
        succeeded, value, code = answer[:3]
        if not succeeded:
            raise named_error(method, int(code), self._without_secret(str(value)))
        if isinstance(value, str) and value.startswith("<"):
            try:
                return ElementTree.fromstring(value)  # noqa: S314 -- the frontend's own answer, and expat limits entities
            except ElementTree.ParseError as error:
                raise self._not_opennebula(method, f"XML that can't be read ({error})") from error
        return value

    def version(self) -> str:
        """The frontend's version, `7.4.0`. Asks it, so it proves endpoint, certificate and password, too."""
        return str(self.call("system.version"))

    def whoami(self) -> User:
        """The user that the login stands for."""
        found = self.call("user.info", -1)
        groups = {found.findtext("GID") or "-1", *(one.text or "-1" for one in found.iterfind("GROUPS/ID"))}
        return User(int(found.findtext("ID")), found.findtext("NAME") or "", tuple(sorted(int(one) for one in groups)))

    def _ask(self, method: str, arguments: tuple[str | int | bool, ...]) -> Any:
        where = f"OpenNebula ({self.endpoint})"
        check = "Check the endpoint, its port and the firewall, and whether oned runs."
        seconds = self._login.timeout_seconds
        try:
            return self._proxy().ask(method, arguments)
        except requests.exceptions.SSLError as error:
            raise _tls_failure(self.endpoint, error) from error
        except requests.exceptions.Timeout as error:
            raise Unreachable(f"{where} didn't answer {method} within {seconds:g} s.", check) from error
        except requests.exceptions.RequestException as error:
            raise Unreachable(f"{where} can't be reached: {_innermost(error)}.", check) from error
        except xmlrpc.client.ProtocolError as error:
            text = f"{where} answered {method} with HTTP {error.errcode}."
            if error.errcode >= 500:
                raise Unreachable(text, check) from error
            raise CallFailed(text, "Check the endpoint's path: only /RPC2 answers.", method=method) from error
        except xmlrpc.client.Fault as error:
            text = self._without_secret(str(error.faultString))
            raise CallFailed(f"OpenNebula couldn't do {method}: {text}.", "See oned.log.", method=method) from error
        except (xmlrpc.client.ResponseError, ExpatError, ValueError, TypeError) as error:
            raise self._not_opennebula(method, "something that isn't XML-RPC") from error

    def _proxy(self) -> Any:
        if self._server is None:
            from snapferry.opennebula.wire import Server  # pyone's bindings take a third of a second

            self._server = Server(self.endpoint, self._session_text(), Post(self._login, self._context))
        return self._server

    def _session_text(self) -> str:
        return f"{self._login.user}:{self._login.secret.get_secret_value()}"

    def _without_secret(self, text: str) -> str:
        secret = self._login.secret.get_secret_value()
        return text.replace(secret, "***") if secret else text

    def _not_opennebula(self, method: str, what: str) -> CallFailed:
        text = f"{self.endpoint} answered {method} with {what}."
        return CallFailed(text, "Check that the endpoint is OpenNebula's XML-RPC service (…/RPC2).", method=method)


class Post:
    """One HTTP request and its answer, each part within the timeout; no proxy, no redirection, no second try."""

    def __init__(self, login: OpenNebulaLogin, context: ssl.SSLContext | None) -> None:
        self._timeout = login.timeout_seconds
        self._verify = login.verify
        self._context = context

    def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> bytes:
        """The answer's body. Raises requests' exceptions, and xmlrpc's ProtocolError for a status but 200."""
        with requests.Session() as session:
            session.trust_env = False
            if self._context:
                session.mount("https://", _Adapter(self._context))
            with session.post(
                url,
                data=body,
                headers={**headers, "Connection": "close", "Accept-Encoding": "identity"},
                timeout=(self._timeout, self._timeout),
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            ) as answer:
                if answer.status_code != 200:
                    raise xmlrpc.client.ProtocolError(url, answer.status_code, str(answer.reason), {})
                return self._read(answer)

    def _read(self, answer: requests.Response) -> bytes:
        deadline = time.monotonic() + self._timeout
        parts = []
        for part in answer.iter_content(_CHUNK):
            if time.monotonic() > deadline:
                raise requests.exceptions.ReadTimeout("the answer doesn't end")
            parts.append(part)
        return b"".join(parts)


class _Adapter(HTTPAdapter):
    """Uses our context; `requests` itself would add its own bundle of public CAs to ours."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing to add: the context decides."""


def _checked_endpoint(text: str) -> str:
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        shown = text if "@" not in text else "an address with a user in it"
        raise Refused(
            f"{shown!r} can't be OpenNebula's endpoint.", "Write for example https://one.example.org:2634/RPC2."
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        _loud(f"The connection to {parts.hostname} is NOT encrypted: anybody between can read the password.")
    path = parts.path if parts.path.strip("/") else "/RPC2"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _tls_context(login: OpenNebulaLogin, endpoint: str) -> ssl.SSLContext | None:
    if not endpoint.startswith("https"):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not login.verify:
        _loud(f"The certificate of {endpoint} is NOT verified: anybody between can read the password.")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif login.ca_pem:
        try:
            context.load_verify_locations(cadata=login.ca_pem)
        except (ssl.SSLError, ValueError) as error:
            step = "Give the text of the CA's certificate, from -----BEGIN CERTIFICATE----- on."
            raise CertificateNotTrusted(f"The CA given for {endpoint} is no certificate in PEM.", step) from error
    else:
        context.load_default_certs()
    return context


def _tls_failure(endpoint: str, error: requests.exceptions.SSLError) -> CertificateNotTrusted | Unreachable:
    reason = _innermost(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        step = "Give the PEM of the CA that signed it (`ca_pem`), and the name that stands in the certificate."
        return CertificateNotTrusted(
            f"The certificate of {endpoint} isn't trusted: {reason}. No password was sent.", step
        )
    return Unreachable(
        f"{endpoint} doesn't speak TLS as expected: {reason}.", "Check the port, and https against http."
    )


def _innermost(error: BaseException) -> str:
    """The text of what really went wrong, below the layers of requests and urllib3."""
    seen: BaseException = error
    while True:
        deeper = seen.__cause__ or seen.__context__ or getattr(seen, "reason", None)
        if not isinstance(deeper, BaseException) or deeper is seen:
            break
        seen = deeper
    return getattr(seen, "verify_message", "") or getattr(seen, "strerror", None) or str(seen) or type(seen).__name__


def _loud(text: str) -> None:
    warnings.warn(text, stacklevel=4)
    log.warning(text)
