"""The lease: one VM, one run.

It is a lock of level 3 on the VM's template, taken with OpenNebula's atomic test-and-set: updates and instantiation
stay possible. Beside it stands a random token. Every commit reads the token again; a holder that couldn't renew for
half the term stops. So a worker that was stopped and wakes an hour later changes nothing.
"""

import logging
import os
import secrets
import socket
import time
from threading import Event, Thread
from types import TracebackType
from typing import Self

from snapferry import opennebula
from snapferry.errors import LeaseLost, SnapferryError
from snapferry.record import Vector

TERM_SECONDS = 120.0
TAKE_SECONDS = 5.0
WATCH_SHARE = 0.25
"""A holder signs every sixth of its term; one that gives no sign while this share of it is watched is dead."""

log = logging.getLogger(__name__)


class Lease:
    """Holds one migration while a round or a cutover runs; a context manager.

    Args:
        client: the target.
        template_id: the template that carries the record.
        vm_name: for messages.
        stop: set when the lease is lost, so that pumps end.
        term_seconds: how long others leave a holder alone that doesn't renew.
        take_seconds: how long to wait for another run to end.

    Raises:
        LeaseLost: another run holds the VM.
    """

    def __init__(
        self,
        client: opennebula.Client,
        template_id: int,
        vm_name: str,
        stop: Event,
        term_seconds: float = TERM_SECONDS,
        take_seconds: float = TAKE_SECONDS,
    ) -> None:
        self._client = client
        self._template_id = template_id
        self._vm_name = vm_name
        self._stop = stop
        self._term = term_seconds
        self._take = take_seconds
        self._token = secrets.token_hex(12)
        self._holder = f"{socket.gethostname()} pid {os.getpid()}"
        self._renewed = 0.0
        self._released = Event()
        self._keeper: Thread | None = None

    def __enter__(self) -> Self:
        self._lock()
        self._renew()
        self._keeper = Thread(target=self._keep, name=f"lease {self._vm_name}", daemon=True)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._keeper:
            self._keeper.join(self._term)
        try:
            self.check()
            free = {"SNAPFERRY_LEASE": {"TOKEN": "", "HOLDER": ""}}
            opennebula.update_template(self._client, self._template_id, free)
            opennebula.unlock_template(self._client, self._template_id)
        except LeaseLost:
            return  # the lock is the new holder's
        except opennebula.NoSuchObject:
            return  # an abandoned migration's template is gone, and its lock with it
        except SnapferryError as failure:
            # what was done is done, and stays so; the lock ends with its term
            log.warning("%s: the lease couldn't be given back: %s", self._vm_name, failure)

    def check(self) -> None:
        """Reads the token again; called before every commit.

        Raises:
            LeaseLost: another run has taken over, or this one couldn't renew for half its term.
        """
        if time.time() - self._renewed > self._term / 2:
            self._stop.set()
            raise LeaseLost(
                f"{self._vm_name}: the lease couldn't be renewed for {self._term / 2:.0f} s.", "Start the run again."
            )
        vector = self._vector()
        if vector.get("TOKEN") != self._token:
            self._stop.set()
            raise LeaseLost(
                f"{self._vm_name}: {vector.get('HOLDER') or 'another run'} has taken over.", "Leave the VM to that run."
            )

    def regain(self) -> None:
        """Renews a lease that couldn't be renewed in time, where nobody has taken it meanwhile.

        For a roll-back, which has to go on after the frontend was away: it writes no disk.

        Raises:
            LeaseLost: another run has taken over.
        """
        if self._vector().get("TOKEN") == self._token:
            self._renew()
        self.check()

    def _lock(self) -> None:
        deadline = time.monotonic() + self._take
        while True:
            try:
                opennebula.lock_template(self._client, self._template_id)
                return
            except opennebula.Locked as error:
                if self._expired(error.time) and self._gives_no_sign():
                    opennebula.unlock_template(self._client, self._template_id)
                    continue
                if time.monotonic() > deadline:
                    raise LeaseLost(
                        f"{self._vm_name}: {self._vector().get('HOLDER') or 'another run'} works on it now.",
                        f"Wait until it ends; a run that died sets the VM free {self._term:.0f} s after its last sign.",
                    ) from error
            self._stop.wait(0.5)

    def _expired(self, locked_at: float) -> bool:
        """Whether the holder gave no sign for its term; one that has locked and not yet signed has the term, too."""
        vector = self._vector()
        signed = float(vector.get("RENEWED") or 0)
        return time.time() - max(signed, float(locked_at)) > float(vector.get("TERM") or self._term)

    def _gives_no_sign(self) -> bool:
        """Whether the holder is dead by this machine's own clock, too: clocks of several machines aren't compared."""
        before = self._vector()
        self._stop.wait(self._term * WATCH_SHARE)
        after = self._vector()
        return all(before.get(name) == after.get(name) for name in ("TOKEN", "RENEWED")) and not self._stop.is_set()

    def _vector(self) -> Vector:
        template = opennebula.read_template(self._client, self._template_id)
        return Vector.of(template.attributes, "SNAPFERRY_LEASE") or Vector({})

    def _renew(self) -> None:
        now = time.time()
        lease = {"TOKEN": self._token, "HOLDER": self._holder, "RENEWED": f"{now:.0f}", "TERM": f"{self._term:.0f}"}
        opennebula.update_template(self._client, self._template_id, {"SNAPFERRY_LEASE": lease})
        self._renewed = now

    def _keep(self) -> None:
        while not self._released.wait(self._term / 6):
            try:
                self.check()
                self._renew()
            except LeaseLost:
                return  # the stop event is set, and the next commit says why
            except SnapferryError:
                continue  # the frontend may come back before half the term is over; check() ends it otherwise
