"""What every flow opens and ends alike: both sessions, the migration, the stop event, what is told meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

from prefect.events import emit_event
from prefect.exceptions import Pause
from prefect.logging import get_run_logger
from prefect.logging.loggers import PrefectLogAdapter
from prefect.runtime import flow_run

from snapferry.blocks import find_opennebula, find_vcenter
from snapferry.flows.progress import ProgressBoard
from snapferry.migration import Migration
from snapferry.plan import MigrationPlan
from snapferry.reconcile import Discrepancy
from snapferry.watch import Watch

STEPS = "steps"
"""Name of the logger below Prefect's own that tells the engine's steps; `follow` shows just these."""

WAITS = "snapferry.run.waits"
"""The event with which a run leaves its process to wait: no sign of life is to be expected of it."""


@contextmanager
def opened(plan: MigrationPlan) -> Iterator[tuple[Migration, Watch]]:
    """Opens what the plan's block names stand for, and a watch that tells the Prefect UI.

    Whatever ends the flow (an error, a cancellation, a suspension) sets the watch's stop event, which ends the copies.

    Raises:
        SnapferryError: an end can't be reached, or the VM isn't there.
    """
    logger = cast(PrefectLogAdapter, get_run_logger()).getChild(STEPS)

    def step(name: str, detail: str) -> None:
        logger.info(f"{name}: {detail}" if detail else name)

    try:
        with ExitStack() as stack:
            source = find_vcenter(plan.vcenter).session()
            stack.callback(source.close)
            target = find_opennebula(plan.opennebula).client()
            stack.callback(target.close)
            migration = Migration.open(plan, source, target)
            board = stack.enter_context(ProgressBoard(plan.slug))
            watch = Watch(on_step=step, on_disk=board.put)
            stack.callback(watch.stop.set)
            yield migration, watch
    except Pause:
        _say_that_it_waits()
        raise


def _say_that_it_waits() -> None:
    """Comes behind the last heartbeat, which may be later than the state Suspended and would make the run look dead."""
    resource = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.name": flow_run.name or ""}
    emit_event(WAITS, resource=resource)  # Prefect adds the flow and its name


def log_discrepancies(found: Sequence[Discrepancy]) -> None:
    """Tells what a reconcile found: what needs a person as a warning."""
    for one in found:
        if one.needs:
            get_run_logger().warning("%s: %s (%s). %s", one.vm or "nobody's", one.what, one.where, one.needs)
        else:
            get_run_logger().info("%s: %s (%s): %s", one.vm or "nobody's", one.what, one.where, one.repaired)


def run_name() -> str:
    """`migrate web01`, for the list of runs."""
    plan = MigrationPlan.model_validate(flow_run.parameters["plan"])
    return f"{(flow_run.flow_name or 'run').split('-')[0]} {plan.slug}"
