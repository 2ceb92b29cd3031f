"""Rounds until the VM is warm, and whether it is warm enough to go on."""

from datetime import UTC, datetime

from prefect.logging import get_run_logger

from snapferry.convergence import fresh
from snapferry.cutover import under_way
from snapferry.errors import Refused
from snapferry.flows.tasks import run_round
from snapferry.migration import Migration
from snapferry.plan import OnNoConvergence
from snapferry.record import MigrationRecord, Phase, RoundResult
from snapferry.watch import Watch


def warm_up(migration: Migration, watch: Watch) -> RoundResult:
    """Rounds until another one doesn't pay; none where the last one has just said so."""
    result = _fresh(migration.planned)
    while result is None or result.verdict is None or result.verdict.decision == "another":
        result = run_round(migration, watch)
        if result.verdict:
            get_run_logger().info("round %d: %s", result.number, result.verdict.reason)
    return result


def check_begun(migration: Migration) -> None:
    """Raises Refused where nothing has been copied yet: a base copy takes hours, and nobody asked for one."""
    if not migration.planned.rounds:
        raise Refused(f"{migration.vm.name}: no round has been copied yet.", "Run its presync or migrate deployment.")


def holds(migration: Migration, result: RoundResult) -> bool:
    """Whether the plan wants the VM kept warm, because the rounds didn't converge, rather than the gate asked."""
    converged = result.verdict is not None and result.verdict.decision == "converged"
    return not converged and migration.plan.on_no_convergence == OnNoConvergence.HOLD


def cut_over_before(migration: Migration) -> bool:
    """Whether an approved cutover was begun and not rolled back: what is left of it has to be done, and no more."""
    record = migration.record
    return record is not None and (record.phase == Phase.MIGRATED or under_way(record))


def _fresh(record: MigrationRecord) -> RoundResult | None:
    """The last round, where so little has changed since that another one wouldn't pay."""
    if record.phase != Phase.WARM or not record.rounds:
        return None
    last = record.rounds[-1]
    return last if fresh(record.rounds, (datetime.now(UTC) - last.started).total_seconds()) else None
