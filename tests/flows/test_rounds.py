"""Rounds as tasks whose results are kept, against the lab."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from snapferry import opennebula
from snapferry.flows import assess_vms
from snapferry.flows.tasks import copy_round, prepare_target, run_round
from snapferry.flows.work import opened
from snapferry.lab import Lab
from snapferry.plan import MigrationPlan
from snapferry.record import RoundResult

pytestmark = pytest.mark.slow
PLAN = MigrationPlan(vm="web01", image_datastore="default")


def test_a_kept_result_counts_only_while_the_target_says_the_same(prefect_api: str, lab: Lab) -> None:
    """Somebody restores the target's record from a backup: the same base again, and the round has to be run again."""

    @flow
    def rounds() -> tuple[RoundResult, RoundResult, RoundResult]:
        with opened(PLAN) as (migration, watch):
            prepare_target(migration, watch)
            run_round(migration, watch)
            images = {
                one.image_id: opennebula.read_image(migration.target, one.image_id) for one in migration.planned.disks
            }
            template = opennebula.read_template(migration.target, migration.planned.template_id)
            second = run_round(migration, watch)
            for number, image in images.items():
                base = image.attributes["SNAPFERRY_BASE"]
                opennebula.update_image(migration.target, number, {"SNAPFERRY_BASE": base})
            ours = {name: template.attributes[name] for name in ("SNAPFERRY_ROUND", "SNAPFERRY_ROUNDS")}
            opennebula.update_template(migration.target, template.id, ours)
            migration.refresh()
            kept = copy_round(migration, watch)
            return second, kept, run_round(migration, watch)

    second, kept, third = rounds()
    assert kept == second  # the key is the same, so the kept result is what the task gives
    assert third.number == second.number == 2
    assert third.started > second.started
    assert third.changed_bytes >= second.changed_bytes


def test_an_assessment_is_a_table_in_the_ui(prefect_api: str, lab: Lab) -> None:
    assert assess_vms(vms=["web01"]) == 0
    with get_client(sync_client=True) as client:
        table = ArtifactFilter(key=ArtifactFilterKey(any_=["snapferry-assessment"]))
        (artifact,) = client.read_artifacts(artifact_filter=table, limit=1)
    assert '"VM": "web01"' in str(artifact.data)
