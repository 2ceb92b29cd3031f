"""Starting a deployment and following its run: what the command line shows while the worker works."""

from collections.abc import Callable, Mapping
from datetime import datetime
from threading import Event
from time import monotonic
from typing import Any, Literal
from uuid import UUID

from httpx import HTTPStatusError
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import ArtifactSort, LogSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from snapferry.blocks import prefect_server
from snapferry.errors import Refused, SnapferryError, Stopped
from snapferry.flows.gate import AWAITING_WINDOW
from snapferry.flows.progress import DATA
from snapferry.flows.work import STEPS
from snapferry.plan import Frozen
from snapferry.watch import DiskProgress

POLL_SECONDS = 0.5
LATE_LINES_SECONDS = 20.0
"""A run's last lines reach the server behind its last state, in one batch with the line that ends them."""
_WARNING = 30
_FINISHED = "Finished in state "
"""How Prefect begins the last line of a run."""
_NO_PLACE = "Deployment concurrency limit reached"
"""How Prefect's message begins for a run that it cancels because another one is there."""


class Started(Frozen):
    """A flow run that was asked for."""

    flow_run_id: UUID
    name: str
    url: str


class Line(Frozen):
    """One step, or one warning, of a run."""

    at: datetime
    text: str


class Update(Frozen):
    """What is new about a run."""

    state: str
    """`Scheduled`, `Running`, `Suspended`, …"""
    lines: tuple[Line, ...]
    disks: tuple[DiskProgress, ...]
    """The last progress of each disk, by label."""


class Followed(Frozen):
    """How a run stands that isn't at work any more."""

    flow_run_id: UUID
    name: str
    outcome: Literal["completed", "waiting", "failed", "cancelled", "crashed"]
    """`waiting`: suspended at its gate, or scheduled for the plan's window."""
    state: str
    message: str
    error: str = ""
    """Name of the error's class, where the run failed with one of ours."""
    exit_code: int = 0


def start(deployment: str, parameters: Mapping[str, Any] | None = None) -> Started:
    """Starts a deployment.

    Args:
        deployment: its full name, `migrate-vm/migrate-web01`.
        parameters: what shall differ from the deployment's own.

    Raises:
        Refused: there is no such deployment, it doesn't take these parameters, or Prefect doesn't answer.
    """
    with prefect_server() as client:
        try:
            known = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise Refused(
                f"Prefect has no deployment {deployment}.", "Run `snapferry deploy` with the plan."
            ) from error
        try:
            run = client.create_flow_run_from_deployment(known.id, parameters=dict(parameters or {}))
        except HTTPStatusError as error:
            raise Refused(f"Prefect doesn't start {deployment}: {_reason(error)}.", "Mend the plan.") from error
    return Started(flow_run_id=run.id, name=run.name, url=_url(run.id))


def follow(
    flow_run_id: UUID,
    on_progress: Callable[[Update], None] | None = None,
    *,
    timeout_seconds: float | None = None,
    stop: Event | None = None,
) -> Followed:
    """Watches a run until it ends, or waits for a person or its window.

    Args:
        flow_run_id: the run.
        on_progress: gets what is new, at most twice a second.
        timeout_seconds: how long to watch at most; a base copy may take a day, so there is no limit by default.
        stop: ends the watching, not the run.

    Raises:
        Refused: there is no such run, or Prefect doesn't answer.
        Stopped: `stop` was set, or the time is over; the run goes on.
    """
    stop = stop or Event()
    deadline = None if timeout_seconds is None else monotonic() + timeout_seconds
    seen = _Seen(flow_run_id)
    ended = None
    with prefect_server() as client:
        while True:
            run = _read_run(client, flow_run_id)
            update = seen.news(client, run)
            if update and on_progress:
                on_progress(update)
            over = stop.is_set() or (deadline is not None and monotonic() > deadline)
            if followed := _followed(run):
                ended = ended or monotonic()
                if over or seen.all_of(followed) or monotonic() > ended + LATE_LINES_SECONDS:
                    return followed
            elif over:
                raise Stopped(f"The run {run.name} goes on.", f"See {_url(run.id)}.")
            stop.wait(POLL_SECONDS)


def _url(flow_run_id: object) -> str:
    """Where a flow run is seen in the Prefect UI."""
    base = PREFECT_UI_URL.value() or (PREFECT_API_URL.value() or "").removesuffix("/api")
    return f"{base}/runs/flow-run/{flow_run_id}"


def _reason(error: HTTPStatusError) -> str:
    """What the server's answer says, as text."""
    try:
        return str(error.response.json()["detail"])
    except (ValueError, KeyError):
        return f"HTTP {error.response.status_code}"


class _Seen:
    """What has been told of a run and of its subflows, so that each step is told once."""

    def __init__(self, flow_run_id: UUID) -> None:
        self._run = flow_run_id
        self._logs: set[UUID] = set()
        self._last: tuple[str, tuple[DiskProgress, ...]] = ("", ())
        self._subflows: list[FlowRun] = []
        self._ends: set[tuple[UUID, str]] = set()

    def all_of(self, followed: Followed) -> bool:
        """Whether nothing more can come: the last lines of the run and of its subflows are there, or won't be written.

        A subflow's lines may arrive behind the run's: Prefect sends what is left at its end beside what comes then.
        """
        wrote = followed.outcome in ("completed", "failed") or followed.state == "Suspended"
        ends = [(self._run, followed.state)]
        ends += [
            (one.id, str(one.state.name))
            for one in self._subflows
            if one.state and one.state.type in (StateType.COMPLETED, StateType.FAILED)
        ]
        return not wrote or all(self._is_told(run, state) for run, state in ends)

    def _is_told(self, run: UUID, state: str) -> bool:
        """Whether the line is there with which a run ends."""
        return any(one == run and message.startswith(f"{_FINISHED}{state}(") for one, message in self._ends)

    def news(self, client: SyncPrefectClient, run: FlowRun) -> Update | None:
        """What is new; None for nothing."""
        parents = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[self._run]))
        self._subflows = client.read_flow_runs(flow_run_filter=parents, limit=20)
        runs = [self._run, *(one.id for one in self._subflows)]
        update = Update(
            state=(run.state and run.state.name) or "", lines=self._lines(client, runs), disks=self._disks(client, runs)
        )
        if not update.lines and (update.state, update.disks) == self._last:
            return None
        self._last = (update.state, update.disks)
        return update

    def _lines(self, client: SyncPrefectClient, runs: list[UUID]) -> tuple[Line, ...]:
        logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=runs), level=LogFilterLevel(ge_=20))
        # logs come in batches, so some arrive behind later ones: look back a little
        offset = max(0, len(self._logs) - 100)
        new = [
            one
            for one in client.read_logs(logs, limit=200, offset=offset, sort=LogSort.TIMESTAMP_ASC)
            if one.id not in self._logs
        ]
        self._logs |= {one.id for one in new}
        self._ends |= {
            (one.flow_run_id, one.message) for one in new if one.flow_run_id and one.message.startswith(_FINISHED)
        }
        told = [one for one in new if one.name.endswith(f".{STEPS}") or one.level >= _WARNING]
        return tuple(Line(at=one.timestamp, text=one.message) for one in told)

    def _disks(self, client: SyncPrefectClient, runs: list[UUID]) -> tuple[DiskProgress, ...]:
        progress = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=runs), type=ArtifactFilterType(any_=["progress"])
        )
        found: dict[int, DiskProgress] = {}
        for one in client.read_artifacts(artifact_filter=progress, sort=ArtifactSort.UPDATED_DESC, limit=50):
            if DATA in (one.metadata_ or {}):
                disk = DiskProgress.model_validate_json((one.metadata_ or {})[DATA])
                found.setdefault(disk.key, disk)
        return tuple(sorted(found.values(), key=lambda one: one.label))


def _read_run(client: SyncPrefectClient, flow_run_id: UUID) -> FlowRun:
    try:
        return client.read_flow_run(flow_run_id)
    except ObjectNotFound as error:
        raise Refused(f"Prefect has no run {flow_run_id}.", "Look at the runs in the UI.") from error


def _followed(run: FlowRun) -> Followed | None:
    """How the run ended, or for whom it waits; None while it works, or is about to."""
    state = run.state
    if state is None:
        return None
    message = state.message or ""
    followed = Followed(flow_run_id=run.id, name=run.name, outcome="completed", state=state.name, message=message)
    match state.type:
        case StateType.COMPLETED:
            return followed
        case StateType.PAUSED:
            return followed.model_copy(update={"outcome": "waiting"})
        case StateType.SCHEDULED if state.name == AWAITING_WINDOW:
            return followed.model_copy(update={"outcome": "waiting"})
        case StateType.CANCELLED if message.startswith(_NO_PLACE):
            text = (
                "Nothing was done: another run of this deployment has its only place. It is at work or about to be,"
                " or died within the last minutes; `snapferry status` says which."
            )
            return followed.model_copy(update={"outcome": "cancelled", "message": text, "exit_code": Refused.exit_code})
        case StateType.CANCELLED:
            return followed.model_copy(update={"outcome": "cancelled", "exit_code": Stopped.exit_code})
        case StateType.CRASHED:
            return followed.model_copy(update={"outcome": "crashed", "exit_code": SnapferryError.exit_code})
        case StateType.FAILED:
            error, text = _error_of(message)
            update = {"outcome": "failed", "error": error.__name__ if error else "", "message": text}
            return followed.model_copy(update={**update, "exit_code": (error or SnapferryError).exit_code})
    return None


def _error_of(message: str) -> tuple[type[SnapferryError] | None, str]:
    """Which of our errors a failed run's message names, and what it says."""
    text = message.removeprefix("Flow run encountered an exception: ")
    name, _, rest = text.partition(": ")
    ours = [SnapferryError]
    for kind in ours:
        ours += kind.__subclasses__()
    found = next((kind for kind in ours if kind.__name__ == name), None)
    return found, rest if found else text
