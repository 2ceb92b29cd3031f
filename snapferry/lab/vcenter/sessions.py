"""Logins, and the sessions that they open."""

import hmac
import secrets
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pyVmomi import vim

from snapferry.lab.vcenter.store import Store

ALWAYS_HELD = frozenset({"System.Anonymous", "System.View", "System.Read", "Sessions.ValidateSession"})
"""What every user may do; SessionIsActive is asked about the caller's own session only."""


class Account(NamedTuple):
    """One user who may log in."""

    name: str
    password: str
    privileges: frozenset[str] | None
    """None: the administrator, who may do everything."""

    def may(self, privilege: str) -> bool:
        return self.privileges is None or privilege in ALWAYS_HELD or privilege in self.privileges


class Session:
    """One login; what it created dies with it."""

    def __init__(self, account: Account, now: float) -> None:
        self.cookie = secrets.token_hex(20)
        self.key = f"52{uuid.uuid4().hex[:6]}-{uuid.uuid4()}"
        self.account = account
        self.last_active = now
        self.calls = 0
        self.login_time = datetime.now(UTC)
        self.ended = False
        self.pages: dict[str, tuple[list[Any], int]] = {}
        """What RetrievePropertiesEx has not told yet, and the size of its pages, by token."""
        self.owned: dict[str, Any] = {}
        """Views, filters and collectors, by their ids."""
        self.default_collector: Any = None

    def describe(self) -> Any:
        """The session as `currentSession` shows it."""
        return vim.UserSession(
            key=self.key,
            userName=self.account.name,
            fullName=self.account.name,
            loginTime=self.login_time,
            lastActiveTime=datetime.now(UTC),
            locale="en",
            messageLocale="en",
            extensionSession=False,
            ipAddress="127.0.0.1",
            userAgent="",
            callCount=self.calls,
        )


class Sessions:
    """Every open session; one that was idle for too long is gone at its next call."""

    def __init__(self, accounts: Mapping[str, Account], idle_seconds: float, store: Store) -> None:
        self.accounts = {name.lower(): account for name, account in accounts.items()}
        self._idle_seconds = idle_seconds
        self._store = store
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def login(self, name: str, password: str) -> Session:
        """Raises InvalidLogin."""
        account = self.accounts.get(name.lower())
        if account is None or not hmac.compare_digest(account.password.encode(), password.encode()):
            raise vim.fault.InvalidLogin(msg="Cannot complete login due to an incorrect user name or password.")
        session = Session(account, time.monotonic())
        with self._lock:
            self._open[session.cookie] = session
        return session

    def find(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it is alive; counts as use."""
        session = self._open.get(cookie or "")
        if session is None:
            return None
        now = time.monotonic()
        if now - session.last_active > self._idle_seconds:
            self.end(session)
            return None
        session.last_active = now
        session.calls += 1
        return session

    def with_key(self, key: str) -> Session | None:
        return next((s for s in list(self._open.values()) if s.key == key), None)

    def end(self, session: Session) -> None:
        """Closes a session and everything it created."""
        with self._lock:
            self._open.pop(session.cookie, None)
        session.ended = True
        for owned in list(session.owned.values()):
            self._store.remove(owned.mo)
        with self._store.condition:
            self._store.condition.notify_all()  # whoever waits in this session waits no longer

    def end_all(self) -> int:
        """Closes every session; returns how many there were."""
        sessions = list(self._open.values())
        for session in sessions:
            self.end(session)
        return len(sessions)

    def every(self) -> list[Session]:
        return list(self._open.values())

    def __len__(self) -> int:
        return len(self._open)
