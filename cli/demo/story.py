"""The demo from its first to its last line: one line a step, with the time since the start."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from snapferry.cli.demo.processes import DemoFailed, Processes
from snapferry.cli.demo.scene import PLAN, VM, lab_config
from snapferry.cli.demo.site import Site, environment
from snapferry.cli.following import steps_of
from snapferry.errors import Stopped

if TYPE_CHECKING:
    from uuid import UUID

    from snapferry.deployments import Followed, Gate, Update
    from snapferry.plan import MigrationPlan

RUN_SECONDS = 600.0


class Teller:
    """Prints lines with the time since the demo began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def update(self, update: "Update") -> None:
        """Tells the new steps of a run."""
        for _, text in steps_of(update):
            self(f"   {text}")


def tell_story(seed: int, folder: Path, report: Path | None, keep: bool) -> bool:
    """Runs the demo.

    Args:
        seed: of the VM, its content and its writes.
        folder: empty, for everything that the demo makes.
        report: file for the report; None to end where the gate asks.
        keep: whether everything stays up at the end.

    Returns:
        Whether every disk is the same at both ends; true where the gate is left open.

    Raises:
        SnapferryError: a step failed.
    """
    tell = Teller()
    _go_into(folder)
    with Processes(folder, os.environ) as processes:
        site = Site(folder, processes, os.environ["PREFECT_API_URL"])
        tell(f"Prefect server and lab start (seed {seed}; logs in {folder})")
        site.start(lab_config(seed))
        plan = _set_up(site, tell)
        _presync(site, tell, plan)
        gate = _migrate(site, tell, plan)
        equal = True
        if report:
            _answer(site, gate, tell)
            equal = _prove(site, plan, report, tell)
        if keep:
            processes.keep()
            tell(f"Prefect's UI: {site.ui_url} (all stays up until `make demo-stop`)")
            tell(f"the command line: export PREFECT_API_URL={site.api_url} PREFECT_HOME={folder / 'prefect'}")
    return equal


def _go_into(folder: Path) -> None:
    """Makes the demo's environment this process's, before Prefect is imported: no settings of the user count."""
    demo = environment(folder)
    os.environ.clear()
    os.environ.update(demo)
    os.chdir(folder)  # Prefect reads .env and prefect.toml where it runs
    os.umask(0o077)


def _set_up(site: Site, tell: Teller) -> "MigrationPlan":
    """Lab, server, blocks, deployments, worker."""
    from snapferry.cli.demo.blocks import make_blocks  # takes seconds, while server and lab start
    from snapferry.deployments import WORK_POOL, deploy
    from snapferry.plan import MigrationPlan

    endpoints = site.wait_lab()
    tell(f"the lab is up: vCenter with {VM} (off), OpenNebula at {endpoints.opennebula_endpoint}")
    site.wait_server()
    tell(f"Prefect is up: {site.ui_url}")
    site.start_worker(WORK_POOL)
    make_blocks(endpoints)
    tell("blocks: vcenter, opennebula")
    file = site.folder / "plans" / f"{VM}.yaml"
    file.parent.mkdir()
    file.write_text(PLAN, encoding="utf-8")
    plan = MigrationPlan.load(file)
    names = [one.name for one in deploy([plan]) if one.name.endswith(f"-{plan.slug}")]
    tell(f"deployments: {', '.join(names)}")
    return plan


def _presync(site: Site, tell: Teller, plan: "MigrationPlan") -> None:
    """The first rounds. The VM is powered on once a worker has the run, so that every demo sees it settle alike."""
    from snapferry.lab import LabControl

    control = LabControl(site.wait_lab())
    on = False

    def update(news: "Update") -> None:
        nonlocal on
        if not on and news.state == "Running":
            control.power_on(VM)
            on = True
            tell(f"{VM} is powered on and writes to both disks")
        tell.update(news)

    _run(site, tell, f"presync-vm/presync-{plan.slug}", "completed", update)


def _run(
    site: Site, tell: Teller, deployment: str, outcome: str, update: "Callable[[Update], None] | None" = None
) -> "Followed":
    """Starts a deployment and follows it."""
    from snapferry.deployments import start

    started = start(deployment)
    tell(f"{deployment}: {started.url}")
    return _follow(site, started.flow_run_id, outcome, update or tell.update)


def _follow(site: Site, flow_run_id: "UUID", outcome: str, update: "Callable[[Update], None]") -> "Followed":
    """Follows a run to that outcome, as long as server, lab and worker live."""
    from snapferry.deployments import follow

    try:
        followed = follow(flow_run_id, update, timeout_seconds=RUN_SECONDS, stop=site.one_ended)
    except Stopped:
        site.check()
        raise
    if followed.outcome != outcome:
        text = f"The run {followed.name} is {followed.state}: {followed.message}"
        raise DemoFailed(text, "See worker.log in the demo's folder.")
    return followed


def _migrate(site: Site, tell: Teller, plan: "MigrationPlan") -> "Gate":
    """The move, up to its gate."""
    from snapferry.deployments import waiting_gates

    waits = _run(site, tell, f"migrate-vm/migrate-{plan.slug}", "waiting")
    gate = waiting_gates(waits.flow_run_id)[0]
    tell("the gate asks, in the UI and to `snapferry approve`:")
    print("\n" + "\n".join(f"          {line}" for line in gate.text.splitlines()) + "\n", flush=True)
    return gate


def _answer(site: Site, gate: "Gate", tell: Teller) -> None:
    """Says yes, and follows the cutover."""
    from snapferry.deployments import CutoverAnswer, answer_gate

    answer_gate(gate.flow_run_id, CutoverAnswer(approve=True, vm=gate.vm, when="now"))
    tell(f"answered: approved, {gate.vm}, now")
    _follow(site, gate.flow_run_id, "completed", tell.update)


def _prove(site: Site, plan: "MigrationPlan", report: Path, tell: Teller) -> bool:
    """Compares both ends and writes the report."""
    from snapferry.cli.demo.proof import prove

    tell("both ends are hashed: the source by the lab, the target by sha256sum")
    proof = prove(site.wait_lab(), plan)
    for disk in proof.disks:
        same = "equal" if disk.equal else "DIFFERENT"
        tell(f"   {disk.label}: {disk.source_sha256[:16]}… {disk.target_sha256[:16]}… {same}")
    tell(f"VM {proof.machine_id} is {proof.machine_state} at the target, the source is {proof.source_power}")
    tell(f"downtime: {proof.downtime}")
    report.write_text(proof.report_json, encoding="utf-8")
    tell(f"report: {report}")
    return proof.good
