"""When a cutover may start."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.flows.window import next_opening, parse_when
from snapferry.plan import Window

VIENNA = ZoneInfo("Europe/Vienna")
NIGHT = Window(days=("fri",), start="22:00", end="04:00", timezone="Europe/Vienna")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59))
WINDOWS = st.builds(
    Window,
    days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
    start=CLOCK,
    end=CLOCK,
    timezone=st.sampled_from(["UTC", "Europe/Vienna", "America/St_Johns", "Pacific/Apia"]),
)


def vienna(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=VIENNA)


def test_without_a_window_any_time_will_do() -> None:
    now = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)
    assert next_opening(None, now) == now


@pytest.mark.parametrize("inside", ["2026-01-30 22:00", "2026-01-30 23:30", "2026-01-31 03:59"])
def test_inside_the_window_it_may_start_at_once(inside: str) -> None:
    assert next_opening(NIGHT, vienna(inside)) == vienna(inside)


@pytest.mark.parametrize("outside", ["2026-01-31 04:00", "2026-02-01 23:00", "2026-02-06 21:59"])
def test_outside_it_waits_for_the_next_one(outside: str) -> None:
    assert next_opening(NIGHT, vienna(outside)) == vienna("2026-02-06 22:00")


def test_the_window_is_meant_in_its_own_zone() -> None:
    """22:00 in Vienna is 21:00 UTC in winter and 20:00 UTC in summer."""
    assert next_opening(NIGHT, datetime(2026, 1, 30, 12, tzinfo=UTC)) == datetime(2026, 1, 30, 21, tzinfo=UTC)
    assert next_opening(NIGHT, datetime(2026, 7, 31, 12, tzinfo=UTC)) == datetime(2026, 7, 31, 20, tzinfo=UTC)


@settings(max_examples=150, deadline=None)
@given(WINDOWS, st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)))
def test_an_opening_lies_ahead_within_eight_days_and_is_inside_the_window(window: Window, now: datetime) -> None:
    opening = next_opening(window, now)
    assert now <= opening <= now + timedelta(days=8, hours=2)
    assert next_opening(window, opening) == opening


def test_an_operator_writes_now_or_a_time_in_the_plans_zone() -> None:
    assert parse_when(" Now ", NIGHT) is None
    assert parse_when("2026-01-31 22:00", NIGHT) == vienna("2026-01-31 22:00")
    assert parse_when("2026-01-31 22:00", None) == datetime(2026, 1, 31, 22, tzinfo=UTC)
    assert parse_when("2026-01-31T22:00+01:00", None) == datetime(2026, 1, 31, 21, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "tomorrow", "22:00 Uhr", "yes"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither `now` nor a time"):
        parse_when(text, NIGHT)
