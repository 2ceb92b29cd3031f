"""Numbers as people read them."""

from datetime import datetime


def size(count: float) -> str:
    """Bytes in decimal units, as rates are given: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def moment(when: datetime) -> str:
    """A point in time with its zone: `2026-01-31 22:00 CET`."""
    return when.strftime("%Y-%m-%d %H:%M %Z").strip()
