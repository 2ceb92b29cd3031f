"""Whether another round pays, and what the downtime would be now. Pure: numbers in, a verdict out."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from snapferry.plan import Frozen, MigrationPlan

SHUTDOWN_SECONDS = 20.0
"""Assumed: a shutdown can't be tried beforehand."""
START_SECONDS = 10.0
"""Assumed from instantiation to RUNNING; small images reach it in 1 to 5 s."""
ASSUMED = frozenset({"shutdown", "start"})
"""The parts of a prediction that no round measures."""
COPY_BYTES_PER_SECOND = 100e6
"""Assumed until something was copied; peers stop at 143 to 170 MB/s a disk."""
SETTLED_BYTES = 1 << 20
"""Rounds that copied less say nothing about the rate: their time is latency."""
SHRINKS = 0.9
"""A delta that isn't smaller than this share of the one before doesn't shrink."""

FRESH_SECONDS = 600.0
"""After this time nobody knows whether the VM still changes as slowly as it did."""
PAYS_SECONDS = 5.0
"""A round that takes less than this out of the downtime isn't worth its snapshot."""

Decision = Literal["another", "converged", "not-converging", "enough"]


class Round(Protocol):
    """What convergence needs to know of a round."""

    @property
    def kind(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def copy_seconds(self) -> float: ...
    @property
    def since_base_seconds(self) -> float: ...
    @property
    def changed_bytes(self) -> int: ...
    @property
    def copied_bytes(self) -> int: ...


class Costs(NamedTuple):
    """Seconds of the steps between power-off and start that no round measures."""

    shutdown: float = SHUTDOWN_SECONDS
    morph: float = 0.0
    start: float = START_SECONDS
    compared_bytes: int = 0
    """What is read and compared while the VM is off, because nothing tells what changed."""


class Verdict(Frozen):
    """What to do after a round."""

    decision: Decision
    predicted_downtime_seconds: float
    parts: dict[str, float]
    """Seconds by step; their sum is the prediction."""
    reason: str
    """One sentence with the numbers."""


def copy_rate(rounds: Sequence[Round]) -> float:
    """Bytes a second that copies of this VM reached."""
    settled = [one for one in rounds if one.copied_bytes >= SETTLED_BYTES and one.copy_seconds > 0]
    if not settled:
        return COPY_BYTES_PER_SECOND
    return sum(one.copied_bytes for one in settled) / sum(one.copy_seconds for one in settled)


def dirty_rate(last: Round) -> float:
    """Bytes a second that the guest changed between the last two snapshots; 0 after a base, which can't tell."""
    if last.kind == "base" or last.since_base_seconds <= 0:
        return 0.0
    return last.changed_bytes / last.since_base_seconds


def in_doubt(rounds: Sequence[Round]) -> bool:
    """Whether two rounds behind the base had to look at everything: the last changes would have to, too."""
    return len(rounds) >= 3 and {one.kind for one in rounds[-3:]} == {"base"}


def fresh(rounds: Sequence[Round], age_seconds: float) -> bool:
    """Whether the last delta still shows what a cutover would find, so that one more round before it wouldn't pay.

    Args:
        rounds: of this VM, in order.
        age_seconds: since the last round's snapshot.
    """
    if not rounds or rounds[-1].kind == "base" or age_seconds > FRESH_SECONDS:
        return False
    return dirty_rate(rounds[-1]) * age_seconds / copy_rate(rounds) <= PAYS_SECONDS


def predict(rounds: Sequence[Round], costs: Costs = Costs()) -> dict[str, float]:  # noqa: B008
    """Seconds of each step of a cutover that began right after one more round.

    What has changed by then is the dirty rate times the time from that round's snapshot to the end of the shutdown;
    everything counts as changed while change tracking is in doubt, and where nothing tells what did.
    """
    last = rounds[-1]
    doubted = in_doubt(rounds)
    changed = last.copied_bytes if doubted else dirty_rate(last) * (last.seconds + costs.shutdown)
    changed = max(changed, costs.compared_bytes)
    overhead = max(0.0, min(last.seconds - last.copy_seconds, 30.0))
    parts = {"shutdown": costs.shutdown, "last changes": changed / copy_rate(rounds) + overhead}
    return parts | {"morph": costs.morph, "start": costs.start}


def judge(rounds: Sequence[Round], plan: MigrationPlan, costs: Costs = Costs()) -> Verdict:  # noqa: B008
    """Whether another round pays.

    Args:
        rounds: this run's rounds in order, at least one.
        plan: budget, floor and the most rounds.
        costs: seconds of the steps that no round measures.
    """
    parts = predict(rounds, costs)
    downtime = sum(parts.values())
    decision, reason = _decide(rounds, plan, downtime, costs.compared_bytes)
    return Verdict(decision=decision, predicted_downtime_seconds=downtime, parts=parts, reason=reason)


def _decide(rounds: Sequence[Round], plan: MigrationPlan, downtime: float, compared_bytes: int) -> tuple[Decision, str]:
    last = rounds[-1]
    changed = f"{last.changed_bytes / 1e6:.1f} MB changed"
    fits = f"a cutover now would take about {downtime:.0f} s, the plan allows {plan.downtime_budget_seconds:.0f} s"
    if last.kind != "base":
        if last.changed_bytes <= plan.floor_bytes and not compared_bytes:
            return "converged", f"{changed}, which is under the floor of {plan.floor_bytes / 1e6:.1f} MB; {fits}."
        if downtime <= plan.downtime_budget_seconds:
            return "converged", f"{changed}; {fits}."
        if compared_bytes:
            return "not-converging", (
                f"nothing tells what changed, so {compared_bytes / 1e6:.1f} MB are compared while the VM is off,"
                f" however many rounds there are; {fits}."
            )
        dirty, rate = dirty_rate(last), copy_rate(rounds)
        deltas = [one.changed_bytes for one in rounds if one.kind != "base"]
        grows = len(deltas) >= 2 and deltas[-1] > SHRINKS * deltas[-2]
        if grows and dirty >= SHRINKS * rate:
            return "not-converging", (
                f"the VM changes {dirty / 1e6:.1f} MB/s and the copy reaches {rate / 1e6:.1f} MB/s, "
                f"so another round doesn't help; {fits}."
            )
        if grows:
            return "not-converging", (
                f"{changed} after {deltas[-2] / 1e6:.1f} MB in the round before, so deltas no longer shrink; {fits}."
            )
    if in_doubt(rounds):
        return "not-converging", (
            f"change tracking is in doubt, so {last.copied_bytes / 1e6:.1f} MB were compared once more; {fits}."
        )
    if len(rounds) >= plan.max_rounds:
        return "enough", f"the plan allows {plan.max_rounds} rounds in a run; {changed}, {fits}."
    if last.kind == "base":
        return "another", "the base is there; the first delta shows how fast the VM changes."
    return "another", f"{changed}; {fits}."
