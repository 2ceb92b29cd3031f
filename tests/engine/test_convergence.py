"""Convergence: it always ends, a quiet VM needs one delta round, and a VM that outruns the link is told so."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from snapferry.convergence import Costs, Verdict, fresh, judge, predict
from snapferry.plan import MigrationPlan


class Measured(NamedTuple):
    kind: str
    seconds: float
    copy_seconds: float
    since_base_seconds: float
    changed_bytes: int
    copied_bytes: int


def plan(**fields: object) -> MigrationPlan:
    return MigrationPlan.model_validate({"vm": "web01", "image_datastore": "default", **fields})


def simulate(
    base_bytes: int, dirty_rate: float, link_rate: float, overhead: float, wanted: MigrationPlan
) -> tuple[list[Measured], Verdict]:
    """Rounds of a VM that changes `dirty_rate` bytes a second, until the verdict ends them."""
    rounds: list[Measured] = []
    since = 0.0
    while True:
        changed = int(base_bytes if not rounds else min(base_bytes, dirty_rate * since))
        copy = changed / link_rate
        kind = "delta" if rounds else "base"
        rounds.append(Measured(kind, copy + overhead, copy, since, changed, changed))
        since = copy + overhead
        verdict = judge(rounds, wanted)
        if verdict.decision != "another":
            return rounds, verdict
        assert len(rounds) < 200, "it doesn't end"


@given(
    base=st.integers(1 << 20, 6 << 40),
    dirty=st.floats(0, 2e9),
    link=st.floats(1e6, 2e9),
    overhead=st.floats(0.5, 60),
    budget=st.floats(0.5, 3600),
    floor=st.integers(0, 1 << 30),
    most=st.integers(2, 30),
)
def test_it_always_ends_within_the_rounds_that_the_plan_allows(
    base: int, dirty: float, link: float, overhead: float, budget: float, floor: int, most: int
) -> None:
    wanted = plan(downtime_budget=budget, floor=floor, max_rounds=most)
    rounds, verdict = simulate(base, dirty, link, overhead, wanted)
    assert len(rounds) <= most
    if verdict.decision == "converged":
        assert rounds[-1].changed_bytes <= floor or verdict.predicted_downtime_seconds <= budget


@given(base=st.integers(1 << 20, 6 << 40), link=st.floats(1e6, 2e9), overhead=st.floats(0.5, 10))
def test_a_quiet_vm_needs_one_delta_round(base: int, link: float, overhead: float) -> None:
    rounds, verdict = simulate(base, 0.0, link, overhead, plan())
    assert [one.kind for one in rounds] == ["base", "delta"]
    assert verdict.decision == "converged"


@given(link=st.floats(1e6, 1e8), factor=st.floats(1.2, 20), overhead=st.floats(0.5, 10))
def test_a_vm_that_dirties_faster_than_the_link_is_told_so_with_the_numbers(
    link: float, factor: float, overhead: float
) -> None:
    rounds, verdict = simulate(100 << 30, link * factor, link, overhead, plan(downtime_budget="2m"))
    assert verdict.decision == "not-converging"
    assert f"{link / 1e6:.1f} MB/s" in verdict.reason
    assert len(rounds) <= 4


def test_the_base_alone_never_decides() -> None:
    base = Measured("base", 10, 9, 0, 1 << 30, 1 << 30)
    assert judge([base], plan(downtime_budget="1h", floor="1 TiB")).decision == "another"


def test_a_vm_that_is_compared_while_it_is_off_gains_nothing_by_more_rounds() -> None:
    """Neither the floor nor a quiet guest shortens what has to be read."""
    base = Measured("base", 1001, 1000, 0, 100 << 30, 100 << 30)
    compared = Measured("compare", 1001, 1000, 1001, 1 << 20, 100 << 30)
    costs = Costs(compared_bytes=100 << 30)
    assert judge([base], plan(), costs).decision == "another", "it shows how long a comparison takes"
    verdict = judge([base, compared], plan(floor="1 GiB"), costs)
    assert verdict.decision == "not-converging"
    assert verdict.parts["last changes"] == 1001
    assert judge([base, compared], plan(downtime_budget="1h"), costs).decision == "converged"


def test_a_vm_whose_tracking_stays_in_doubt_isnt_copied_in_full_again_and_again() -> None:
    base = Measured("base", 11, 10, 0, 10**9, 10**9)
    assert judge([base, base], plan(downtime_budget="5s")).decision == "another", "it may have been once"
    verdict = judge([base, base, base], plan(downtime_budget="5s"))
    assert verdict.decision == "not-converging"
    assert "in doubt" in verdict.reason
    assert verdict.parts["last changes"] >= 10, "the last changes would be a full copy as well"


def test_the_prediction_is_the_sum_of_its_parts_and_grows_with_the_shutdown() -> None:
    rounds = [Measured("base", 11, 10, 0, 10**9, 10**9), Measured("delta", 3, 1, 20, 10**8, 10**8)]
    quick, slow = predict(rounds, Costs(shutdown=5)), predict(rounds, Costs(shutdown=60))
    assert judge(rounds, plan()).predicted_downtime_seconds == sum(predict(rounds).values())
    # 5 MB/s for 55 s longer, over a link of 100 MB/s, comes on top of the shutdown itself
    assert abs(sum(slow.values()) - sum(quick.values()) - 55 - 5e6 * 55 / 1e8) < 0.01


def test_a_round_is_fresh_while_little_has_changed_since() -> None:
    base = Measured("base", 11, 10, 0, 10**9, 10**9)  # 100 MB/s
    busy, quiet = Measured("delta", 3, 1, 20, 10**9, 10**8), Measured("delta", 3, 1, 20, 10**6, 10**6)
    assert fresh([base, quiet], 500)
    assert fresh([base, busy], 5)
    assert not fresh([base, busy], 60)
    assert not fresh([base, quiet], 3600)
    assert not fresh([base], 1)
    assert not fresh([], 1)
