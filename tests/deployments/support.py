"""What tests of whole runs do: start, watch, look at the gate, answer it, compare both ends."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact

from snapferry.blocks import find_opennebula, find_vcenter
from snapferry.deployments import (
    CutoverAnswer,
    Followed,
    Gate,
    Update,
    follow,
    plan_parameters,
    start,
    waiting_gates,
)
from snapferry.migration import Migration
from snapferry.plan import MigrationPlan

PATIENCE_SECONDS = 180.0


def plan(vm: str, site: str = "lab", **fields: object) -> MigrationPlan:
    """A VM's plan; `site` names the blocks of its lab."""
    ends = {"vcenter": site, "opennebula": site, "image_datastore": "default"}
    return MigrationPlan.model_validate({"vm": vm, **ends, "floor": "1 MiB", **fields})


def run(deployment: str, plan: MigrationPlan | None = None, updates: list[Update] | None = None) -> Followed:
    """Starts a deployment and watches it."""
    return watch(begin(deployment, plan), updates)


def begin(deployment: str, plan: MigrationPlan | None = None) -> UUID:
    """Starts a deployment: with its own plan, or another."""
    return start(deployment, plan_parameters(plan) if plan else None).flow_run_id


def watch(run: UUID, updates: list[Update] | None = None) -> Followed:
    """Follows a run until it ends or waits."""
    collect = updates.append if updates is not None else None
    return follow(run, collect, timeout_seconds=PATIENCE_SECONDS)


def gate_of(run: UUID) -> Gate:
    """The gate at which a run waits."""
    (gate,) = waiting_gates(run)
    return gate


def yes(vm: str, when: str = "now") -> CutoverAnswer:
    """The answer that lets a VM pass."""
    return CutoverAnswer(approve=True, vm=vm, when=when)


def artifacts(run: UUID) -> dict[str, Artifact]:
    """What a run shows, by key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    return {one.key or "": one for one in found}


def open_migration(plan: MigrationPlan) -> Migration:
    """Both ends of a plan, opened as a worker opens them; a context manager."""
    return Migration.open(plan, find_vcenter(plan.vcenter).session(), find_opennebula(plan.opennebula).client())
