"""Who holds a VM's lease, as its template shows it: for people, and for what looks before it repairs."""

from datetime import UTC, datetime

from snapferry import processes
from snapferry.lease import TERM_SECONDS
from snapferry.opennebula.models import Template
from snapferry.plan import Frozen
from snapferry.vectors import Vector


class Holder(Frozen):
    """A run that holds a VM, or that held it until it died."""

    name: str
    """`worker7 pid 4711`"""
    since: datetime
    """When it took the VM, by the frontend's clock."""
    last_sign: datetime
    dead: bool
    """Whether its process, one of this machine, has ended, or it gave no sign for its term.

    The term compares clocks, so it is a hint: `Lease` makes sure.
    """

    def describe(self) -> str:
        """`worker7 pid 4711 (since …, last sign …)`"""
        return f"{self.name} (since {_moment(self.since)}, last sign {_moment(self.last_sign)})"


def holder_of(template: Template) -> Holder | None:
    """Who holds the VM of this template; None where nobody does."""
    if template.lock is None:
        return None
    signs = Vector.of(template.attributes, "SNAPFERRY_LEASE") or Vector({})
    locked = float(template.lock.time)
    try:
        last = max(locked, float(signs.get("RENEWED") or 0))
        term = float(signs.get("TERM") or TERM_SECONDS)
    except ValueError:  # somebody edited it: the lock itself still has a time
        last, term = locked, TERM_SECONDS
    return Holder(
        name=signs.get("HOLDER") or "a run that didn't sign",
        since=datetime.fromtimestamp(locked, UTC),
        last_sign=datetime.fromtimestamp(last, UTC),
        dead=processes.is_gone(signs.get("PROCESS")) or datetime.now(UTC).timestamp() - last > term,
    )


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
