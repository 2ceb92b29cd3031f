"""A run that died with its worker is marked as crashed, and doesn't keep the next one from starting."""

from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from snapferry import opennebula
from snapferry.deployments import deploy
from snapferry.deployments.heartbeats import AUTOMATION, LEAST_SECONDS
from snapferry.errors import PlanError
from snapferry.flows.work import WAITS

from ..conftest import wait_for
from .conftest import Site
from .support import begin, gate_of, open_migration, plan, run, watch
from .test_migration import follow_until_copying

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect, long")]  # side by side with the others


def has_said_that_it_waits(run: UUID) -> bool:
    """Whether the server got the event that ends a waiting run's heartbeats."""
    wanted = {"event": {"name": [WAITS]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json={"filter": wanted})
    flows = [one.get("prefect.resource.name") for event in answer.json()["events"] for one in event["related"]]
    return "migrate-vm" in flows  # by which the automation knows it


def test_a_run_that_died_with_its_worker_is_marked_and_the_next_one_starts_and_a_waiting_one_goes_on(
    site: Site,
) -> None:
    dead = plan("dead", rate_limit="1 MB/s")
    deploy([dead, plan("waits")], dead_seconds=LEAST_SECONDS)
    try:
        waiting = run("migrate-vm/migrate-waits").flow_run_id
        asked = gate_of(waiting)
        wait_for(lambda: has_said_that_it_waits(waiting), seconds=30, what="the event")
        killed = begin("presync-vm/presync-dead")
        follow_until_copying(killed)
        site.replace_worker()
        refused = run("presync-vm/presync-dead")
        assert (refused.outcome, refused.exit_code) == ("cancelled", 3)
        assert "another run of this deployment has its only place" in refused.message  # the dead one
        died = watch(killed)
        assert (died.outcome, died.state) == ("crashed", "Crashed")
        assert "sign of life" in died.message
        with open_migration(dead) as migration:
            opennebula.unlock_template(migration.target, migration.planned.template_id)  # as its term's end would
        assert run("presync-vm/presync-dead").outcome == "completed"
        assert site.lab.control.inventory().vms["dead"].snapshots == ()
        assert gate_of(waiting) == asked
    finally:
        deploy([])


def test_the_automation_is_made_once_and_stays_off_where_an_operator_switched_it_off(prefect_api: str) -> None:
    deploy([])
    with get_client(sync_client=True) as client:
        (made,) = client.read_automations_by_name(AUTOMATION)
        client.pause_automation(made.id)
        try:
            deploy([], dead_seconds=300)
            (again,) = client.read_automations_by_name(AUTOMATION)
        finally:
            client.resume_automation(made.id)
    assert (again.id, again.enabled) == (made.id, False)
    assert again.trigger.within.total_seconds() == 300  # type: ignore[union-attr]


def test_a_term_that_a_live_run_would_overstep_is_refused(prefect_api: str) -> None:
    with pytest.raises(PlanError, match="40 s or more"):
        deploy([], dead_seconds=20)
