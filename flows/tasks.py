"""The steps of the flows: each one call of the engine that can be repeated."""

from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from snapferry import abandon as abandoning
from snapferry import cutover, prepare, rounds
from snapferry.cutover import Approval, CutoverResult
from snapferry.errors import LeaseLost, RolledBack, SourceError, TargetError, TransferError
from snapferry.flows.limits import host_slots
from snapferry.flows.show import show_report, show_round, tell
from snapferry.flows.work import log_discrepancies
from snapferry.migration import Migration
from snapferry.reconcile import reconcile_migration
from snapferry.record import MigrationRecord, RoundResult
from snapferry.watch import Watch

TRANSIENT = (SourceError, TargetError, TransferError, LeaseLost)
"""What may be gone at the next attempt; a plan, a refusal, a wish to stop and a roll-back won't."""


def _transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TRANSIENT)


def _base(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """What the round starts from, read from the images' records just now."""
    migration: Migration = parameters["migration"]
    migration.refresh()
    return f"snapferry-round-{migration.base_key()}"


@task(retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=_transient, cache_policy=NO_CACHE)
def reconcile_first(migration: Migration, watch: Watch) -> None:
    """Repairs what a dead run left, and tells what needs a person; what this run takes up is left to it."""
    log_discrepancies(reconcile_migration(migration, watch, resume=True))


@task(retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=_transient, cache_policy=NO_CACHE)
def prepare_target(migration: Migration, watch: Watch) -> None:
    """Checks both ends; makes images and template; switches change tracking on."""
    prepare.prepare(migration, watch)


@task(
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=_transient,
    persist_result=True,
    result_serializer="json",
    cache_key_fn=_base,
)
def copy_round(migration: Migration, watch: Watch) -> RoundResult:
    """One round for all disks; an attempt that failed is taken up by the engine's journal."""
    with host_slots(migration.vm.host, len(migration.vm.disks), migration.plan.copies_per_host, watch):
        result = rounds.run_round(migration, watch)
    show_round(migration, result)
    return result


@task(cache_policy=NO_CACHE)
def cut_over_now(migration: Migration, watch: Watch, approval: Approval | None) -> CutoverResult:
    """Stops the source, copies the last changes, starts the target; back again if a step fails.

    Without an approval only a cutover that was begun before is brought to its end.
    """
    try:
        if approval is None:
            result = cutover.end_cutover(migration, watch)
        else:
            cutover.check_approval(migration, approval)
            tell("cutover.started", migration, approved_by=approval.by)
            result = cutover.cut_over(migration, watch, approval.by)
    except RolledBack as error:
        tell("rolled-back", migration, cause=error.cause)
        raise
    tell("migrated", migration, machine_id=result.machine_id, downtime_seconds=result.downtime_seconds)
    return result


@task(cache_policy=NO_CACHE)
def publish_report(migration: Migration) -> None:
    """The report, to look at in the UI."""
    show_report(migration)


@task(cache_policy=NO_CACHE)
def end_presync(slug: str) -> None:
    """Pauses the VM's scheduled pre-sync, where it is deployed: nothing is left to copy, or shall be."""
    with get_client(sync_client=True) as client:
        try:
            client.pause_deployment(client.read_deployment_by_name(f"presync-vm/presync-{slug}").id)
        except ObjectNotFound:
            get_run_logger().debug("The plan isn't deployed.")


@task(retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=_transient, cache_policy=NO_CACHE)
def remove_all_of_ours(migration: Migration, watch: Watch) -> list[str]:
    """Snapshots at the source; images, template and address ranges at the target."""
    removed = abandoning.abandon(migration, watch)
    for one in removed:
        get_run_logger().info("removed: %s", one)
    return removed


def run_round(migration: Migration, watch: Watch) -> RoundResult:
    """One round, whose result counts only if the images' records say the same.

    Submitted, so that a cancellation reaches this thread while the round's copies run.
    """
    result = copy_round.submit(migration, watch).result()
    migration.refresh()
    if not _recorded(migration.planned, result):
        result = copy_round.with_options(refresh_cache=True).submit(migration, watch).result()
    return result


def _recorded(record: MigrationRecord, result: RoundResult) -> bool:
    """Whether a kept result is true of the target: this round is the last one, and every image holds it."""
    return record.round_number == result.number and all(disk.round == result.number for disk in record.disks)
