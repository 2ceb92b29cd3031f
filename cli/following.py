"""Starting a deployment and following its run: a bar per disk on a terminal, a line a step anywhere else."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self
from uuid import UUID

import typer

from snapferry.cli.output import duration, show_json, size
from snapferry.command_line import command_line
from snapferry.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.progress import Progress, TaskID

    from snapferry.deployments import Followed, Gate, Update

Vm = Annotated[str, typer.Argument(metavar="VM", help="The VM as its plan names it.", show_default=False)]
NoFollow = Annotated[bool, typer.Option("--no-follow", help="Start the run, say where it is seen, and end.")]


_ENDS = ("Encountered exception during execution", "Finished in state", "Engine execution exited")
"""How Prefect's own lines about the error that ends a run begin."""


def slug_of(vm: str) -> str:
    """The VM's name as its deployments have it."""
    from snapferry.plan import MigrationPlan

    return MigrationPlan(vm=vm or "vm", image_datastore="").slug


def plan_of(vm: str) -> dict[str, Any]:
    """Parameters with the plan that was deployed for a VM, to start another flow with.

    Raises:
        PlanError: no plan was deployed for it.
        Refused: Prefect doesn't answer.
    """
    from prefect.exceptions import ObjectNotFound

    from snapferry.blocks import prefect_server

    name = f"migrate-vm/migrate-{slug_of(vm)}"
    with prefect_server() as client:
        try:
            return dict(client.read_deployment_by_name(name).parameters)
        except ObjectNotFound as error:
            raise PlanError(
                f"No plan is deployed for {vm!r}.", f"Run `{command_line('plan', vm)}`, then `snapferry deploy`."
            ) from error


def start_and_follow(
    deployment: str, parameters: dict[str, Any] | None = None, *, follow: bool = True, json: bool = False
) -> None:
    """Starts a deployment and shows its run until it ends or waits; ends the command with the run's exit code."""
    from snapferry.deployments import start

    started = start(deployment, parameters)
    say(f"Started: {started.name}, {started.url}")
    if follow:
        follow_run(started.flow_run_id, json=json)
    elif json:
        show_json(started)


def follow_run(flow_run_id: UUID, *, json: bool = False) -> None:
    """Shows a run until it ends or waits.

    Raises:
        typer.Exit: with the run's exit code where it isn't 0; 130 where Ctrl-C ended the watching.
    """
    from snapferry.deployments import follow

    try:
        with Display() as display:
            followed = follow(flow_run_id, display.update)
    except KeyboardInterrupt:
        say(f"The run goes on. To stop it: prefect flow-run cancel {flow_run_id}")
        raise typer.Exit(130) from None
    tell_end(followed, json)
    if followed.exit_code:
        raise typer.Exit(followed.exit_code)


def tell_end(followed: "Followed", json: bool) -> None:
    """Says how a run ended, or for whom it waits."""
    if json:
        show_json(followed)
        return
    gate = _gate(followed.flow_run_id) if followed.outcome == "waiting" else None
    if gate:
        say(
            f"{gate.vm} waits at the gate. Answer it in the Prefect UI (Resume), or: {command_line('approve', gate.vm)}"
        )
        return
    text = f"{followed.name}: {followed.state}"
    say(f"{text}: {followed.message}" if followed.message else text)


def say(text: str) -> None:
    """A line for people, on stderr: stdout belongs to the result."""
    print(text, file=sys.stderr, flush=True)


def steps_of(update: "Update") -> "Iterator[tuple[datetime, str]]":
    """The lines of an update in short: no traceback, and not the error that ends the run and is told at the end."""
    for line in update.lines:
        if line.text and not line.text.startswith(_ENDS):
            yield line.at, line.text.splitlines()[0]


class Display:
    """Shows what is new of a run: steps as lines, disks as bars where stderr is a terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._state = ""

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._progress = _progress()
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._progress:
            self._progress.stop()

    def update(self, update: "Update") -> None:
        """Takes what `snapferry.deployments.follow` tells."""
        if update.state != self._state and not update.lines:
            self._line(update.state.lower())
        self._state = update.state
        for at, text in steps_of(update):
            self._line(f"{at.astimezone():%H:%M:%S}  {text}")
        if not self._progress:
            return
        for disk in update.disks:
            if disk.label not in self._bars:
                self._bars[disk.label] = self._progress.add_task(disk.label, rate="", left="")
            left = "" if disk.seconds_left is None else f"{duration(disk.seconds_left)} left"
            self._progress.update(
                self._bars[disk.label],
                total=disk.total_bytes,
                completed=disk.done_bytes,
                rate=f"{size(disk.bytes_per_second)}/s",
                left=left if disk.done_bytes < disk.total_bytes else "done",
            )

    def _line(self, text: str) -> None:
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            say(text)


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
    )


def _gate(flow_run_id: UUID) -> "Gate | None":
    from snapferry.deployments import waiting_gates

    return next(iter(waiting_gates(flow_run_id)), None)
