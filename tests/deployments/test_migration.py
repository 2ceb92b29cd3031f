"""A VM's way through the deployments, on a real Prefect server, with a real worker, against the lab."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL
from prefect.states import Cancelling, Scheduled

from snapferry.deployments import (
    CutoverAnswer,
    Followed,
    Gate,
    Update,
    answer_gate,
    deploy,
    follow,
    plan_parameters,
    start,
    waiting_gates,
)
from snapferry.errors import Refused, Stopped
from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabDisk, LabNic, LabVCenter, LabVm, Workload
from snapferry.plan import MigrationPlan

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 120.0

DISKS = (
    LabDisk(capacity="96 MiB", data="24 MiB", data_runs=16),
    LabDisk(capacity=(32 << 20) + 512, data="4 MiB", data_runs=8),
)
NICS = (LabNic(network="VM Network", ip="10.0.5.20"),)
QUIET = Workload(rate="200 kB/s", hot="1 MiB")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    vms = tuple(LabVm(name=f"web0{n}", disks=DISKS, nics=NICS if n == 1 else (), workload=QUIET) for n in range(1, 6))
    with up(LabConfig(vcenter=LabVCenter(vms=vms)), tmp_path_factory.mktemp("lab") / "lab") as running:
        yield running


def environment(lab: Lab) -> dict[str, str]:
    """Both ends, as a worker's environment describes them."""
    ends = lab.endpoints
    return {
        "SNAPFERRY_VCENTER_HOST": ends.vcenter_host,
        "SNAPFERRY_VCENTER_PORT": str(ends.vcenter_port),
        "SNAPFERRY_VCENTER_USER": ends.vcenter_user,
        "SNAPFERRY_VCENTER_PASSWORD": ends.vcenter_password,
        "SNAPFERRY_VCENTER_CA": ends.ca_file,
        "SNAPFERRY_OPENNEBULA_ENDPOINT": ends.opennebula_endpoint,
        "SNAPFERRY_OPENNEBULA_USER": ends.opennebula_user,
        "SNAPFERRY_OPENNEBULA_PASSWORD": ends.opennebula_password,
        "SNAPFERRY_OPENNEBULA_CA": ends.ca_file,
    }


class Site:
    """A Prefect server, a lab, and as many workers as the test starts, one after the other."""

    def __init__(self, api: str, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self._api = api

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process; killed with all its runs' processes when the block ends."""
        settings = {
            "PREFECT_API_URL": self._api,
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "SNAPFERRY_STATE": str(self.folder / "state"),
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SNAPFERRY_"))}
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "snapferry", "--type", "process"]
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=clean | settings | environment(self.lab), cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            try:
                yield process
            finally:
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a worker and its runs as a power cut would."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
    process.wait(timeout=30)


@pytest.fixture
def site(prefect_api: str, lab: Lab, tmp_path: Path) -> Site:
    return Site(prefect_api, lab, tmp_path)


def plan(vm: str, **fields: object) -> MigrationPlan:
    return MigrationPlan.model_validate({"vm": vm, "image_datastore": "default", "floor": "1 MiB", **fields})


def run(deployment: str, plan: MigrationPlan | None = None, updates: list[Update] | None = None) -> Followed:
    started = start(deployment, plan_parameters(plan) if plan else None)
    return watch(started.flow_run_id, updates)


def watch(run: UUID, updates: list[Update] | None = None) -> Followed:
    collect = updates.append if updates is not None else None
    return follow(run, collect, timeout_seconds=PATIENCE_SECONDS)


def gate_of(run: UUID) -> Gate:
    (gate,) = waiting_gates(run)
    return gate


def yes(vm: str, when: str = "now") -> CutoverAnswer:
    return CutoverAnswer(approve=True, vm=vm, when=when)


def artifacts(run: UUID) -> dict[str, Artifact]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    return {one.key or "": one for one in found}


def test_a_vm_migrates_through_its_gate_though_the_worker_was_replaced_meanwhile(site: Site) -> None:
    deploy([plan("web01")])
    updates: list[Update] = []
    with site.worker() as worker:
        waiting = run("migrate-vm/migrate-web01", updates=updates)
        assert waiting.outcome == "waiting", waiting
        kill(worker)
    lines = [line.text for update in updates for line in update.lines]
    assert any(line.startswith("copying") for line in lines)
    assert {disk.label for update in updates for disk in update.disks} == {"Hard disk 1", "Hard disk 2"}
    assert {"web01-rounds", "web01-hard-disk-1", "web01-hard-disk-2"} <= set(artifacts(waiting.flow_run_id))
    gate = gate_of(waiting.flow_run_id)
    assert gate.vm == "web01"
    assert "Predicted downtime" in gate.text
    with pytest.raises(Refused, match="names 'web02'"):
        answer_gate(gate.flow_run_id, yes("web02"))
    assert site.lab.control.inventory().vms["web01"].power == "poweredOn"
    answer_gate(gate.flow_run_id, yes("web01"))
    with site.worker():
        done = watch(gate.flow_run_id)
    assert done.outcome == "completed", done
    inventory = site.lab.control.inventory()
    assert inventory.vms["web01-migrated"].power == "poweredOff"
    assert len(inventory.machines) == 1
    assert {"round.completed", "converged", "gate.waiting", "cutover.started", "migrated"} <= events_of("web01")
    check_no_password_is_left(site)


def events_of(vm: str) -> set[str]:
    """Names of our events about a VM, without `snapferry.`; they reach the database in batches."""
    deadline = monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            asked = {"filter": {"event": {"prefix": ["snapferry."]}}, "limit": 50}
            events = client.request("POST", "/events/filter", json=asked).json()["events"]
            found = {one["event"].removeprefix("snapferry.") for one in events if one["payload"]["vm"] == vm}
            if "migrated" in found or monotonic() > deadline:
                return found


def check_no_password_is_left(site: Site) -> None:
    """In the Prefect database and in every file that a worker wrote."""
    database = Path(PREFECT_SERVER_DATABASE_CONNECTION_URL.value().removeprefix("sqlite+aiosqlite:///"))
    files = [one for one in (*database.parent.iterdir(), *site.folder.rglob("*")) if one.is_file()]
    assert any(one.stat().st_size > 100_000 for one in files)
    for password in (site.lab.endpoints.vcenter_password, site.lab.endpoints.opennebula_password):
        assert not [str(one) for one in files if password.encode() in one.read_bytes()]


def test_a_wrong_name_asks_again_and_a_retry_asks_anew(site: Site) -> None:
    deploy([plan("web02")])
    with site.worker():
        waiting = run("migrate-vm/migrate-web02")
        first = gate_of(waiting.flow_run_id)
        with get_client(sync_client=True) as client:  # as the form in the browser does
            empty = client.resume_flow_run(waiting.flow_run_id, run_input={})
            assert empty.status.value == "REJECT"
            client.resume_flow_run(waiting.flow_run_id, run_input=yes("web2").model_dump(mode="json"))
        assert watch(waiting.flow_run_id).outcome == "waiting"
        second = gate_of(waiting.flow_run_id)
        assert second.asked > first.asked
        assert "names 'web2'" in second.text
        answer_gate(waiting.flow_run_id, CutoverAnswer(approve=False, vm="web02", when="now"))
        declined = watch(waiting.flow_run_id)
        assert (declined.outcome, declined.error, declined.exit_code) == ("failed", "Declined", Refused.exit_code)
        with get_client(sync_client=True) as client:  # the button Retry
            client.set_flow_run_state(waiting.flow_run_id, Scheduled(name="AwaitingRetry"), force=True)
        assert watch(waiting.flow_run_id).outcome == "waiting"
        assert gate_of(waiting.flow_run_id).asked > second.asked
    assert site.lab.control.inventory().vms["web02"].power == "poweredOn"


def test_a_cutover_by_itself_asks_too_and_needs_copies_first(site: Site) -> None:
    deploy([])
    with site.worker():
        nothing_yet = run("cutover-vm/cutover", plan("web03"))
        assert (nothing_yet.outcome, nothing_yet.error) == ("failed", "Refused")
        assert run("presync-vm/presync", plan("web03")).outcome == "completed"
        waiting = run("cutover-vm/cutover", plan("web03"))
        assert waiting.outcome == "waiting"
        answer_gate(waiting.flow_run_id, yes("web03"))
        assert watch(waiting.flow_run_id).outcome == "completed"
    assert site.lab.control.inventory().vms["web03-migrated"].power == "poweredOff"


def test_an_approval_for_later_waits_for_its_time(site: Site) -> None:
    deploy([])
    with site.worker():
        assert run("presync-vm/presync", plan("web04")).outcome == "completed"
        waiting = run("cutover-vm/cutover", plan("web04"))
        answer_gate(waiting.flow_run_id, yes("web04", when="2100-01-01 22:00"))
        later = watch(waiting.flow_run_id)
        assert (later.outcome, later.state) == ("waiting", "AwaitingWindow")
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(waiting.flow_run_id).state
        assert state
        assert state.state_details.scheduled_time
        assert state.state_details.scheduled_time.isoformat().startswith("2100-01-01T22:00")
    assert site.lab.control.inventory().vms["web04"].power == "poweredOn"


def test_a_cancelled_run_stops_copying_and_the_next_one_takes_it_up(site: Site) -> None:
    deploy([])
    with site.worker():
        slow = start("presync-vm/presync", plan_parameters(plan("web05", rate_limit="500 kB/s")))
        copying = Event()
        watched = follow_until_copying(slow.flow_run_id, copying)
        assert copying.is_set(), watched
        asked = monotonic()
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(slow.flow_run_id, Cancelling())
        assert watch(slow.flow_run_id).outcome == "cancelled"
        assert monotonic() - asked < 30
        assert site.lab.control.inventory().vms["web05"].snapshots == ()
        assert run("presync-vm/presync", plan("web05")).outcome == "completed"


def follow_until_copying(run: UUID, copying: Event) -> Followed | None:
    """Watches a run until a disk's progress moves."""

    def look(update: Update) -> None:
        if any(disk.done_bytes for disk in update.disks):
            copying.set()

    try:
        return follow(run, look, timeout_seconds=PATIENCE_SECONDS, stop=copying)
    except Stopped:
        return None


def test_an_abandoned_migration_leaves_nothing(site: Site) -> None:
    before = site.lab.control.inventory()
    deploy([])
    with site.worker():
        assert run("presync-vm/presync", plan("web05")).outcome == "completed"
        assert site.lab.control.inventory().images != before.images
        assert run("abandon-vm/abandon", plan("web05")).outcome == "completed"
    after = site.lab.control.inventory()
    assert (after.images, after.templates, after.files) == (before.images, before.templates, before.files)
    assert after.vms["web05"].snapshots == ()
