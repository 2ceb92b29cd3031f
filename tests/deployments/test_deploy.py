"""Plans become deployments on a real Prefect server."""

from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint

from snapferry.deployments import WORK_POOL, deploy, plan_parameters, start
from snapferry.deployments.deploy import BASE
from snapferry.errors import PlanError, Refused
from snapferry.flows import migrate_vm
from snapferry.plan import MigrationPlan

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def plan(vm: str, **fields: object) -> MigrationPlan:
    return MigrationPlan.model_validate({"vm": vm, "image_datastore": "default", **fields})


def read(name: str) -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name)


def names() -> set[str]:
    with get_client(sync_client=True) as client:
        return {one.name for one in client.read_deployments(limit=200)}


def test_a_plan_becomes_a_scheduled_presync_and_a_migration(prefect_api: str) -> None:
    done = deploy([plan("web01", presync={"cron": "30 2 * * 1-5", "timezone": "Europe/Vienna"})])
    assert {"presync-vm/presync-web01", "migrate-vm/migrate-web01"} <= {one.name for one in done}
    presync, migrate = read("presync-vm/presync-web01"), read("migrate-vm/migrate-web01")
    schedule = presync.schedules[0].schedule
    assert (schedule.cron, schedule.timezone) == ("30 2 * * 1-5", "Europe/Vienna")
    assert not migrate.schedules
    for one in (presync, migrate):
        assert one.work_pool_name == WORK_POOL
        assert one.global_concurrency_limit
        assert one.global_concurrency_limit.limit == 1
        assert "vm:web01" in one.tags
        assert one.parameters["plan"]["vm"] == "web01"
        assert one.pull_steps == []


def test_deploying_again_changes_nothing_and_keeps_what_an_operator_paused(prefect_api: str) -> None:
    first = deploy([plan("web02")])
    presync = read("presync-vm/presync-web02")
    with get_client(sync_client=True) as client:
        client.update_deployment_schedule(presync.id, presync.schedules[0].id, active=False)
        client.pause_deployment(read("migrate-vm/migrate-web02").id)
    second = deploy([plan("web02")])
    assert {one.name for one in first} == {one.name for one in second}
    again = read("presync-vm/presync-web02")
    assert again.id == presync.id
    assert [one.active for one in again.schedules] == [False]
    assert read("migrate-vm/migrate-web02").paused


def test_a_changed_plan_reaches_its_deployment(prefect_api: str) -> None:
    deploy([plan("web03")])
    deploy([plan("web03", rate_limit="100 MB/s", downtime_budget="5m")])
    known = read("migrate-vm/migrate-web03").parameters["plan"]
    assert MigrationPlan.model_validate(known) == plan("web03", rate_limit=100_000_000, downtime_budget=300)


def test_prune_removes_ours_whose_plan_is_gone_and_nobody_elses(prefect_api: str) -> None:
    @flow(name="migrate-vm-of-somebody")
    def theirs() -> None: ...

    deploy([plan("old"), plan("kept")])
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(theirs), "migrate-old", tags=["snapferry", "snapferry-plan"])
        client.create_deployment(client.create_flow(migrate_vm), "migrate-by-hand", tags=["snapferry"])
    removed = {one.name for one in deploy([plan("kept")], prune=True) if one.action == "removed"}
    assert {"presync-vm/presync-old", "migrate-vm/migrate-old"} <= removed
    assert {"presync-kept", "migrate-kept", "migrate-old", "migrate-by-hand", *BASE} <= names()
    with pytest.raises(ObjectNotFound):
        read("migrate-vm/migrate-old")


def test_plans_that_would_share_a_deployment_are_refused(prefect_api: str) -> None:
    with pytest.raises(PlanError, match="'/a/web09' and '/b/web09'"):
        deploy([plan("/a/web09"), plan("/b/web09")])
    assert "presync-web09" not in names()


def test_prefect_yaml_has_the_same_base_deployments() -> None:
    entries = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {one["name"]: load_flow_from_entrypoint(one["entrypoint"]).name for one in entries} == {
        name: flow.name for name, flow in BASE.items()
    }
    assert {one["work_pool"]["name"] for one in entries} == {WORK_POOL}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"networks": {"VM Network": "lan"}, "window": {"start": "22:00", "end": "04:00", "days": ["sat"]}},
        {
            "shutdown": {"timeout": "10m", "on_timeout": "power-off"},
            "deploy": "template",
            "floor": "1 GiB",
            "gate": False,
        },
    ],
)
def test_a_plan_survives_its_way_through_a_deployment(fields: dict[str, object]) -> None:
    was = plan("web01", **fields)
    assert MigrationPlan.model_validate(plan_parameters(was)["plan"]) == was


def test_a_run_with_a_plan_that_has_a_mistake_isnt_started(prefect_api: str) -> None:
    deploy([])
    with pytest.raises(Refused, match="floors"):
        start("cutover-vm/cutover", {"plan": {"vm": "web01", "image_datastore": 1, "floors": 1}})


def test_a_deployment_that_isnt_there_is_named(prefect_api: str) -> None:
    with pytest.raises(Refused, match="no deployment migrate-vm/migrate-nobody"):
        start("migrate-vm/migrate-nobody")


def test_a_started_run_can_be_found_in_the_ui(prefect_api: str) -> None:
    deploy([plan("web04")])
    started = start("migrate-vm/migrate-web04")
    assert started.url.endswith(f"/runs/flow-run/{UUID(str(started.flow_run_id))}")


def test_without_a_server_it_is_said_how_to_get_one(without_prefect: None) -> None:
    with pytest.raises(Refused, match="No Prefect server is configured"):
        deploy([])


def test_a_server_that_is_down_is_named(dead_prefect: str) -> None:
    with pytest.raises(Refused, match=f"Prefect at {dead_prefect} doesn't answer"):
        deploy([])
