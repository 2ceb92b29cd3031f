"""What turns plans into deployments: per VM a scheduled pre-sync and a migration, beside one for each flow."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from snapferry.blocks import prefect_server
from snapferry.deployments.heartbeats import (
    AUTOMATION,
    DEAD_SECONDS,
    LEAST_SECONDS,
    ensure_automation,
    environment,
)
from snapferry.errors import PlanError
from snapferry.flows import abandon_vm, assess_vms, cutover_vm, migrate_vm, presync_vm, reconcile_vms
from snapferry.flows.cutover import cut_over
from snapferry.plan import Frozen, MigrationPlan

WORK_POOL = "snapferry"
TAG = "snapferry"
PLAN_TAG = "snapferry-plan"
"""Marks the deployments that a plan's file stands behind, and that `prune` may remove."""
BASE: dict[str, Flow[..., Any]] = {
    "assess": assess_vms,
    "presync": presync_vm,
    "migrate": migrate_vm,
    "cutover": cutover_vm,
    "abandon": abandon_vm,
    "reconcile": reconcile_vms,
}
"""One deployment for each flow, whose runs are given a plan; prefect.yaml has the same."""


class Deployed(Frozen):
    """What was done with one deployment."""

    name: str
    """`migrate-vm/migrate-web01`; of the automation, its own."""
    action: Literal["created", "updated", "removed"]


class Wanted(NamedTuple):
    """A deployment as it shall be."""

    flow: Flow[..., Any]
    name: str
    tags: tuple[str, ...]
    plan: MigrationPlan | None = None
    scheduled: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.flow.name}/{self.name}"


def deploy(plans: Sequence[MigrationPlan], prune: bool = False, dead_seconds: float = DEAD_SECONDS) -> list[Deployed]:
    """Makes or updates the deployments of these plans, what marks dead runs, and a missing work pool. Repeatable.

    What an operator has paused in the UI stays paused.

    Args:
        plans: one a VM.
        prune: whether the deployments of plans that aren't among `plans` are removed; no other ones are.
        dead_seconds: after how long without a sign of life a run counts as dead.

    Raises:
        PlanError: two plans would have the same deployments, or a live run would count as dead.
        Refused: Prefect doesn't answer.
    """
    if dead_seconds < LEAST_SECONDS:
        raise PlanError(
            f"{dead_seconds:g} s without a sign of life is what a live run may need.",
            f"Give {LEAST_SECONDS:g} s or more.",
        )
    wanted = [*_base_deployments(), *_plan_deployments(plans)]
    with prefect_server() as client:
        _ensure_work_pool(client)
        done = [_apply(client, one) for one in wanted]
        watched = [*BASE.values(), cut_over]
        made = ensure_automation(client, [one.name for one in watched], dead_seconds)
        done.append(Deployed(name=AUTOMATION, action=made))
        return [*done, *_prune(client, {one.full_name for one in wanted})] if prune else done


def plan_parameters(plan: MigrationPlan) -> dict[str, Any]:
    """A flow's parameters for a plan: what differs from the defaults, under the names that a plan's file uses."""
    return {"plan": plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)}


def _base_deployments() -> list[Wanted]:
    return [Wanted(flow, name, (TAG,)) for name, flow in BASE.items()]


def _plan_deployments(plans: Sequence[MigrationPlan]) -> list[Wanted]:
    wanted: list[Wanted] = []
    by_slug: dict[str, MigrationPlan] = {}
    for plan in plans:
        slug = plan.slug
        if slug in by_slug:
            raise PlanError(
                f"The plans for {by_slug[slug].vm!r} and {plan.vm!r} would both be deployed as presync-{slug}.",
                "Name the VMs so that the last parts of their paths differ, or give one by its instance UUID.",
            )
        by_slug[slug] = plan
        tags = (TAG, PLAN_TAG, f"vm:{slug}")
        wanted.append(Wanted(presync_vm, f"presync-{slug}", tags, plan, scheduled=True))
        wanted.append(Wanted(migrate_vm, f"migrate-{slug}", tags, plan))
    return wanted


def _ensure_work_pool(client: SyncPrefectClient) -> None:
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        try:
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            return  # somebody was faster


def _apply(client: SyncPrefectClient, wanted: Wanted) -> Deployed:
    try:
        known: DeploymentResponse | None = client.read_deployment_by_name(wanted.full_name)
    except ObjectNotFound:
        known = None
    strategy = ConcurrencyLimitStrategy.CANCEL_NEW if wanted.scheduled else ConcurrencyLimitStrategy.ENQUEUE
    deployment = RunnerDeployment.from_flow(
        wanted.flow,
        wanted.name,
        parameters=plan_parameters(wanted.plan) if wanted.plan else {},
        schedules=_schedules(wanted, known),
        paused=known.paused if known else None,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy) if wanted.plan else None,
        tags=list(wanted.tags),
        work_pool_name=WORK_POOL,
        job_variables={"env": environment()},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.apply()
    return Deployed(name=wanted.full_name, action="updated" if known else "created")


def _schedules(wanted: Wanted, known: DeploymentResponse | None) -> list[DeploymentScheduleCreate] | None:
    if not (wanted.scheduled and wanted.plan):
        return None
    active = known.schedules[0].active if known and known.schedules else True
    cron = CronSchedule(cron=wanted.plan.presync.cron, timezone=wanted.plan.presync.timezone)
    return [DeploymentScheduleCreate(schedule=cron, active=active)]


def _prune(client: SyncPrefectClient, wanted: set[str]) -> list[Deployed]:
    """Removes what an earlier `deploy` made for a plan that is gone."""
    tags = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG, PLAN_TAG]))
    removed = []
    for flow, prefix in ((presync_vm, "presync-"), (migrate_vm, "migrate-")):
        known = client.read_deployments(
            deployment_filter=tags, flow_filter=FlowFilter(name=FlowFilterName(any_=[flow.name])), limit=200
        )
        for one in known:
            full_name = f"{flow.name}/{one.name}"
            ours = one.name.startswith(prefix) and (one.entrypoint or "").startswith("snapferry.flows.")
            if ours and full_name not in wanted:
                client.delete_deployment(one.id)
                removed.append(Deployed(name=full_name, action="removed"))
    return removed
