"""The lease: one VM, one run.

It is a lock of level 3 on the VM's template, taken with OpenNebula's atomic test-and-set: updates and instantiation
stay possible. Beside it stands a random token. Every commit reads the token again; a holder that couldn't renew for
half the term stops. So a worker that was stopped and wakes an hour later changes nothing.

A dead holder's lock is never taken off, because an unlock can't say whose lock it means: it is taken over as it is, by
another token. Nothing compares before it sets, so a claim is written right after a look that found it free, and read
again after a pause longer than any such look may be old: of two claimants the last one stays, and a late one knows
that it was late.
"""

import logging
import os
import secrets
import socket
import time
from threading import Event, Thread
from types import TracebackType
from typing import NamedTuple, Self

from snapferry import opennebula, processes
from snapferry.errors import LeaseLost, SnapferryError, Stopped
from snapferry.vectors import Vector

TERM_SECONDS = 120.0
TAKE_SECONDS = 5.0
WATCH_SHARE = 0.25
"""A holder signs every sixth of its term; one that gives no sign while this share of it is watched is dead."""
GRACE_SHARE = 0.9
"""Of its term: for so long after its last sign a roll-back goes on although the frontend doesn't answer."""
SIGN_SECONDS = 10.0
"""A lock whose holder hasn't signed for so long is nobody's: who locks and can't sign in half of it gives up."""
GIVE_BACK_SECONDS = 5.0
"""How long giving it back is tried again: a lock that stays keeps everybody out for the rest of its term."""
CLAIM_SECONDS = 1.5
"""The longest from the look that found a lease free to the end of a claim's writing; a pause of twice that follows."""

log = logging.getLogger(__name__)


class _Seen(NamedTuple):
    """What the template says of its lease at one moment."""

    locked_at: int
    """By the frontend's clock; 0 where there is no lock."""
    token: str
    """Empty where nobody has signed, or the last holder gave it back."""
    holder: str
    process: str
    renewed: str
    term: str

    def expired(self, term_seconds: float) -> bool:
        """Whether the holder gave no sign for its term; one that has locked and not yet signed has the term, too."""
        signed = max(float(self.renewed or 0), float(self.locked_at))
        return time.time() - signed > float(self.term or term_seconds)


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
        Stopped: `stop` was set while it waited for another run.
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
        self._process = processes.this_process()
        self._renewed = 0.0
        self._lost = ""
        self._released = Event()
        self._keeper: Thread | None = None

    def __enter__(self) -> Self:
        self._enter()
        self._keeper = Thread(target=self._keep, name=f"lease {self._vm_name}", daemon=True)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._keeper:
            self._keeper.join(self._term)
        deadline, again = time.monotonic() + GIVE_BACK_SECONDS, False
        while True:
            try:
                self._give_back(again)
                return
            except LeaseLost:
                return  # the lock is the new holder's
            except opennebula.NoSuchObject:
                return  # an abandoned migration's template is gone, and its lock with it
            except SnapferryError as failure:
                if time.monotonic() > deadline:
                    # what was done is done, and stays so; the lock ends with its term
                    log.warning("%s: the lease couldn't be given back: %s", self._vm_name, failure)
                    return
            again = True
            Event().wait(1)

    def _give_back(self, again: bool) -> None:
        """Takes the token off, then the lock; `again`, where an earlier try may have done the first."""
        if not (again and self._in_time() and not self._look().token):
            self.check()
            free = {"SNAPFERRY_LEASE": {"TOKEN": "", "HOLDER": ""}}
            opennebula.update_template(self._client, self._template_id, free)
        opennebula.unlock_template(self._client, self._template_id)

    def check(self) -> None:
        """Reads the token again; called before every commit.

        Raises:
            LeaseLost: another run has taken over, or this one couldn't renew for half its term.
        """
        if self._lost:
            self._stop.set()
            raise LeaseLost(self._lost, "Leave the VM to that run.")
        if not self._in_time():
            self._stop.set()
            raise LeaseLost(
                f"{self._vm_name}: the lease couldn't be renewed for {self._term / 2:.0f} s.", "Start the run again."
            )
        self._compare(self._look())

    def regain(self) -> None:
        """Renews a lease that couldn't be renewed in time, where nobody has taken it meanwhile.

        For a roll-back, which has to go on while the frontend is away, and after it: it writes no disk. A frontend that
        doesn't answer is no matter while the term lasts: until then nobody else may have taken the lease. One that
        somebody deleted from the template is claimed anew.

        Raises:
            LeaseLost: another run has taken over.
        """
        try:
            seen = self._look()
        except SnapferryError as error:
            if self._lost or _now() - self._renewed > self._term * GRACE_SHARE:
                raise
            log.warning("%s: going on within the lease's term: %s", self._vm_name, error)
            return
        if seen.token:
            self._compare(seen)
        if not seen.token or not self._in_time():
            self._claim(seen)
        self.check()

    def _enter(self) -> None:
        """Takes the lease: a free one at once, a dead holder's by a claim; waits for a living one."""
        deadline = time.monotonic() + self._take
        while True:
            began = _now()
            locked = self._lock()
            seen = self._look()
            if locked and not seen.token:
                self._sign(began, SIGN_SECONDS / 2)
                return
            if self._is_abandoned(seen) and self._claim(seen):
                log.warning("%s: taken over from %s, which is dead", self._vm_name, seen.holder or "a run")
                return
            if time.monotonic() > deadline:
                raise LeaseLost(
                    f"{self._vm_name}: {self._look().holder or 'another run'} works on it now.",
                    f"Wait until it ends; a run that died on another host sets the VM free {self._term:.0f} s after"
                    " its last sign.",
                )
            if self._stop.wait(0.5):
                raise Stopped(f"{self._vm_name}: told to stop while waiting for another run to end.")

    def _lock(self) -> bool:
        try:
            opennebula.lock_template(self._client, self._template_id)
        except opennebula.Locked:
            return False
        return True

    def _is_abandoned(self, seen: _Seen) -> bool:
        """Whether nobody stands behind the lock any more.

        Raises:
            LeaseLost: the holder is a process of this machine that was stopped, and it can't be ended.
        """
        if not seen.token:
            return self._stays(seen, SIGN_SECONDS)
        if processes.is_gone(seen.process):
            return True
        # the second look is by this machine's own clock: clocks of several machines aren't compared
        if not seen.expired(self._term) or not self._stays(seen, float(seen.term or self._term) * WATCH_SHARE):
            return False
        if processes.is_here(seen.process) and not processes.end(seen.process):
            # stopped, it keeps its lock on the image; woken, it would write
            raise LeaseLost(
                f"{self._vm_name}: {seen.holder} holds it, gives no sign, and can't be ended from here.",
                f"End that process (`kill -9 {seen.holder.rpartition(' ')[2]}` as its user), then run again.",
            )
        return True

    def _stays(self, seen: _Seen, seconds: float) -> bool:
        """Whether nothing changes while it is watched for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._stop.wait(min(0.5, seconds)) or self._look() != seen:
                return False
        return True

    def _claim(self, seen: _Seen) -> bool:
        """Puts this token over one that nobody stands behind; whether it stayed.

        Raises:
            LeaseLost: the frontend was too slow for a claim that could be trusted.
        """
        began = _now()
        if self._look() != seen:
            return False
        self._sign(began, CLAIM_SECONDS)
        self._released.wait(2 * CLAIM_SECONDS)
        return self._look().token == self._token

    def _sign(self, began: float, seconds: float) -> None:
        """Writes this token. Raises LeaseLost where that took too long: another run may have signed meanwhile."""
        now = _now()
        lease = {
            "TOKEN": self._token,
            "HOLDER": self._holder,
            "PROCESS": self._process,
            "RENEWED": f"{time.time():.0f}",
            "TERM": f"{self._term:.0f}",
        }
        opennebula.update_template(self._client, self._template_id, {"SNAPFERRY_LEASE": lease})
        if _now() - began > seconds:
            self._lost = (
                f"{self._vm_name}: OpenNebula took {_now() - began:.1f} s to note the lease, too long to trust."
            )
            self._stop.set()
            raise LeaseLost(self._lost, f"Run again in {self._term:.0f} s.")
        self._renewed = now

    def _compare(self, seen: _Seen) -> None:
        """Raises LeaseLost where the token is another run's, or nobody's."""
        if not seen.token:
            self._stop.set()
            raise LeaseLost(
                f"{self._vm_name}: somebody deleted the lease of this run from template {self._template_id}.",
                "Find out who edits that template; see `snapferry status`.",
            )
        if seen.token != self._token:
            self._stop.set()
            self._lost = f"{self._vm_name}: {seen.holder or 'another run'} has taken over."
            raise LeaseLost(self._lost, "Leave the VM to that run.")

    def _in_time(self) -> bool:
        return _now() - self._renewed <= self._term / 2

    def _look(self) -> _Seen:
        template = opennebula.read_template(self._client, self._template_id)
        vector = Vector.of(template.attributes, "SNAPFERRY_LEASE") or Vector({})
        locked_at = template.lock.time if template.lock else 0
        return _Seen(locked_at, *(vector.get(name) for name in ("TOKEN", "HOLDER", "PROCESS", "RENEWED", "TERM")))

    def _keep(self) -> None:
        while not self._released.wait(self._term / 6):
            try:
                self.check()
                self._sign(self._renewed, self._term)  # until then nobody else may have signed
            except LeaseLost:
                if self._lost:
                    return  # the stop event is set, and the next commit says why
            except SnapferryError:
                continue  # the frontend may come back before half the term is over; check() ends it otherwise


def _now() -> float:
    """Seconds that also count while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
