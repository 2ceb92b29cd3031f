"""A VM's way through the deployments, on a real Prefect server, with a real worker, against the lab."""

from contextlib import suppress
from threading import Event
from time import monotonic
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling, Scheduled

from snapferry.deployments import CutoverAnswer, Update, answer_gate, deploy, follow
from snapferry.errors import Refused, Stopped

from ..engine.support import assert_equal
from .conftest import Site
from .support import PATIENCE_SECONDS, begin, gate_of, open_migration, plan, run, watch, yes

pytestmark = pytest.mark.slow


def test_a_wrong_name_asks_again_and_a_retry_asks_anew(site: Site) -> None:
    deploy([plan("retry")])
    waiting = run("migrate-vm/migrate-retry").flow_run_id
    first = gate_of(waiting)
    with pytest.raises(Refused, match="names 'other'"):
        answer_gate(waiting, yes("other"))
    with get_client(sync_client=True) as client:  # as a browser would, without the form's own checks
        assert client.resume_flow_run(waiting, run_input={}).status.value == "REJECT"
        client.resume_flow_run(waiting, run_input=yes("other").model_dump(mode="json"))
    assert watch(waiting).outcome == "waiting"
    second = gate_of(waiting)
    assert second.asked > first.asked
    assert "names 'other'" in second.text
    answer_gate(waiting, CutoverAnswer(approve=False, vm="retry", when="now"))
    declined = watch(waiting)
    assert (declined.outcome, declined.error, declined.exit_code) == ("failed", "Declined", Refused.exit_code)
    with get_client(sync_client=True) as client:  # the button Retry
        client.set_flow_run_state(waiting, Scheduled(name="AwaitingRetry"), force=True)
    assert watch(waiting).outcome == "waiting"
    assert gate_of(waiting).asked > second.asked
    assert site.lab.control.power("retry") == "poweredOn"


def test_a_cutover_by_itself_asks_too_and_needs_copies_first(site: Site) -> None:
    nothing_yet = run("cutover-vm/cutover", plan("alone"))
    assert (nothing_yet.outcome, nothing_yet.error) == ("failed", "Refused")
    assert run("presync-vm/presync", plan("alone")).outcome == "completed"
    waiting = run("cutover-vm/cutover", plan("alone"))
    assert waiting.outcome == "waiting"
    assert site.lab.control.power("alone") == "poweredOn"
    answer_gate(waiting.flow_run_id, yes("alone"))
    updates: list[Update] = []
    assert watch(waiting.flow_run_id, updates).outcome == "completed"
    steps = [line.text for update in updates for line in update.lines]
    assert steps[-1] == "done"
    assert len(set(steps)) == len(steps) - 1  # the checks, before and after the answer: each step is told once
    assert site.lab.control.power("alone-migrated") == "poweredOff"


def test_an_approval_for_later_waits_for_its_time(site: Site) -> None:
    waiting = run("migrate-vm/migrate", plan("later")).flow_run_id
    answer_gate(waiting, yes("later", when="2100-01-01 22:00"))
    later = watch(waiting)
    assert (later.outcome, later.state) == ("waiting", "AwaitingWindow")
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(waiting).state
    assert state and state.state_details.scheduled_time
    assert state.state_details.scheduled_time.isoformat().startswith("2100-01-01T22:00")
    assert site.lab.control.power("later") == "poweredOn"


def test_a_cancelled_run_stops_copying_and_the_next_one_takes_it_up(site: Site) -> None:
    slow = begin("presync-vm/presync", plan("cancelled", rate_limit="500 kB/s"))
    follow_until_copying(slow)
    asked = monotonic()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(slow, Cancelling())
    assert watch(slow).outcome == "cancelled"
    assert monotonic() - asked < 30
    assert site.lab.control.inventory().vms["cancelled"].snapshots == ()
    assert run("presync-vm/presync", plan("cancelled")).outcome == "completed"


def follow_until_copying(run: UUID) -> None:
    """Watches a run until a disk's progress moves."""
    copying = Event()

    def look(update: Update) -> None:
        if any(disk.done_bytes for disk in update.disks):
            copying.set()

    with suppress(Stopped):
        ended = follow(run, look, timeout_seconds=PATIENCE_SECONDS, stop=copying)
        raise AssertionError(ended)
    assert copying.is_set()


def test_a_snapshot_stays_while_the_gate_waits_where_delta_files_tell_the_changes(site: Site) -> None:
    wanted = plan("untracked", changes="delta-files")
    waiting = run("migrate-vm/migrate", wanted)
    assert waiting.outcome == "waiting"
    assert len(site.lab.control.inventory().vms["untracked"].snapshots) == 1
    answer_gate(waiting.flow_run_id, yes("untracked"))
    assert watch(waiting.flow_run_id).outcome == "completed"
    assert site.lab.control.inventory().vms["untracked-migrated"].snapshots == ()
    with open_migration(wanted) as migration:
        *rounds, final = migration.planned.rounds
        assert {disk.changes for one in rounds[1:] for disk in one.disks} == {"compare"}  # vmfs6, and it ran
        assert {disk.changes for disk in final.disks} == {"delta-files"}
        assert_equal(site.lab, migration)


def test_an_abandoned_migration_leaves_nothing(site: Site) -> None:
    before = site.lab.control.inventory()
    given_up = plan("abandoned", restore_change_tracking=True)
    assert run("presync-vm/presync", given_up).outcome == "completed"
    assert site.lab.control.inventory().images != before.images
    deploy([given_up])
    assert run("abandon-vm/abandon", given_up).outcome == "completed"
    with get_client(sync_client=True) as client:
        assert client.read_deployment_by_name("presync-vm/presync-abandoned").paused
    after = site.lab.control.inventory()
    left = set(after.vms["abandoned"].files) - set(before.vms["abandoned"].files)
    assert left <= {"abandoned-ctk.vmdk", "abandoned_1-ctk.vmdk"}  # vCenter removes them when it next opens the disks
    files = {"files": before.vms["abandoned"].files}
    vms = after.vms | {"abandoned": after.vms["abandoned"].model_copy(update=files)}
    assert after.model_copy(update={"vms": vms}) == before
