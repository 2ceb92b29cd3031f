"""When a cutover may start. Pure: a plan's window, an answer and a clock in, a time out."""

from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from snapferry.plan import Window

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def zone_of(window: Window | None) -> tzinfo:
    """The zone in which times without one are meant."""
    return ZoneInfo(window.timezone) if window else UTC


def parse_when(text: str, window: Window | None) -> datetime | None:
    """The time that an operator gave; None for `now`.

    Raises:
        ValueError: it is neither `now` nor a time.
    """
    if text.strip().lower() == "now":
        return None
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is neither `now` nor a time such as 2026-01-31 22:00") from error
    return when if when.tzinfo else when.replace(tzinfo=zone_of(window))


def next_opening(window: Window | None, earliest: datetime) -> datetime:
    """The first moment from `earliest` on at which a cutover may start: `earliest` itself inside the window.

    A window whose end isn't after its start goes over midnight and belongs to the day on which it starts.
    """
    if window is None:
        return earliest
    local = earliest.astimezone(ZoneInfo(window.timezone))
    openings = []
    for ahead in range(-1, 8):
        day = local.date() + timedelta(days=ahead)
        if _DAYS[day.weekday()] not in window.days:
            continue
        start = datetime.combine(day, _time(window.start), local.tzinfo)
        end = datetime.combine(day, _time(window.end), local.tzinfo)
        if end <= start:
            end = datetime.combine(day + timedelta(days=1), _time(window.end), local.tzinfo)
        if start.astimezone(UTC) <= earliest.astimezone(UTC) < end.astimezone(UTC):
            return earliest
        if start.astimezone(UTC) > earliest.astimezone(UTC):
            openings.append(start)
    return min(openings)


def _time(text: str) -> time:
    return time.fromisoformat(text)
