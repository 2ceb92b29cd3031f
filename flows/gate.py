"""The gate: a suspended flow run with a typed form, which a person answers in the Prefect UI or on the command line.

It is asked in the top-level flow of a deployment, since only that can be suspended: its process ends, and a resumed
run begins at the top again. What was asked is kept in inputs of the flow run, one a question, so that only the answer
to the last one counts, an answer is void if the VM's disks changed meanwhile, and a retried run asks anew.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from prefect import suspend_flow_run
from prefect.client.orchestration import get_client
from prefect.client.schemas import OrchestrationResult
from prefect.exceptions import Pause
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Paused, Scheduled
from pydantic import Field

from snapferry.convergence import ASSUMED, Verdict
from snapferry.cutover import Approval, check_approval, gate_fingerprint
from snapferry.errors import Refused
from snapferry.flows.show import tell
from snapferry.flows.text import moment, size
from snapferry.flows.window import next_opening, parse_when, zone_of
from snapferry.migration import Migration
from snapferry.plan import Frozen
from snapferry.record import RoundResult

QUESTION = "snapferry-gate"
"""Prefix of the flow run inputs that keep what was asked: `snapferry-gate-<run count>-<number>`."""

SHOWN_ROUNDS = 6
AWAITING_WINDOW = "AwaitingWindow"
"""Name of the states of a run that was approved and waits for its time."""


class CutoverAnswer(RunInput):
    """The form. No field has a default: Prefect would take an empty answer for a yes."""

    approve: bool = Field(title="Approve", description="Yes: the VM is stopped and moved. No: this run ends here.")
    vm: str = Field(title="Name of the VM, typed again", min_length=1, description="Exactly as vCenter has it.")
    when: str = Field(
        title="When", min_length=1, description="now, or a time such as 2026-01-31 22:00; without a zone, the plan's."
    )


class Question(Frozen):
    """What was asked at a gate, and about what."""

    vm: str
    """The VM's name in vCenter, to be typed again."""
    fingerprint: str
    asked: datetime
    text: str
    """The form's description, in Markdown."""


class Declined(Refused):
    """A person said no."""


def pass_gate(migration: Migration) -> Approval:
    """Asks until a valid answer is there, and waits for the plan's window. A plan without a gate approves by itself.

    Raises:
        Pause: this process ends here; Prefect starts the run again when it is answered, or when the time has come.
        Declined: the answer is no.
    """
    if not migration.plan.gate:
        now = datetime.now(UTC)
        _wait_until(next_opening(migration.plan.window, now))
        vm, fingerprint = migration.vm.name, gate_fingerprint(migration)
        return Approval(vm=vm, by="the plan, which has no gate", at=now, fingerprint=fingerprint)
    asked, refusal = _questions(), ""
    number = max(asked, default=1)
    while True:
        question = asked.get(number) or _ask(migration, number, refusal)
        form = CutoverAnswer.with_initial_data(description=question.text)
        timeout = round(migration.plan.gate_timeout_seconds)
        answer = suspend_flow_run(form, timeout=timeout, key=f"{_prefix()}-{number}")
        try:
            approval, earliest = judge_answer(migration, question, answer)
        except Declined:
            raise
        except Refused as error:
            get_run_logger().warning("The answer was refused: %s The gate asks again.", error)
            number, refusal = number + 1, error.cause
            continue
        _wait_until(next_opening(migration.plan.window, earliest))
        return approval


def judge_answer(migration: Migration, question: Question, answer: CutoverAnswer) -> tuple[Approval, datetime]:
    """The approval that an answer gives, and the earliest time that it allows.

    Raises:
        Declined: the answer is no.
        Refused: it can't be taken.
    """
    if not answer.approve:
        raise Declined(
            f"{question.vm}: the cutover was declined at the gate.", "The VM stays warm; start the run again."
        )
    now = datetime.now(UTC)
    by = f"the gate of run {flow_run.name}"
    approval = Approval(vm=answer.vm.strip(), by=by, at=now, fingerprint=question.fingerprint)
    check_approval(migration, approval)
    try:
        when = parse_when(answer.when, migration.plan.window)
    except ValueError as error:
        raise Refused(f"{error}.", "Write now, or a time.") from error
    return approval, max(now, when or now)


def _ask(migration: Migration, number: int, refusal: str) -> Question:
    """Keeps a new question."""
    question = Question(
        vm=migration.vm.name,
        fingerprint=gate_fingerprint(migration),
        asked=datetime.now(UTC),
        text=describe(migration, refusal),
    )
    with get_client(sync_client=True) as client:
        client.create_flow_run_input(_run_id(), f"{_prefix()}-{number}", question.model_dump_json())
    tell("gate.waiting", migration, number=number)
    return question


def describe(migration: Migration, refusal: str = "") -> str:
    """What the form shows, in Markdown: what would happen, the rounds, how long it would take, and what is proven."""
    plan, vm, record = migration.plan, migration.vm, migration.planned
    last = record.rounds[-1] if record.rounds else None
    lines = [f"**{refusal}** Please answer again.\n"] if refusal else []
    lines.append(f"## Cut over {vm.name} to OpenNebula?\n")
    if last and last.verdict:
        seconds = last.verdict.predicted_downtime_seconds
        lines.append(f"Predicted downtime: **{seconds:.0f} s** ({parts_in_brief(last.verdict)}).\n")
        lines.append(f"{last.verdict.reason[0].upper()}{last.verdict.reason[1:]}\n")
    lines += [rounds_in_brief(record.rounds[-SHOWN_ROUNDS:]), ""]
    disks = ", ".join(f"{disk.label} ({disk.capacity_bytes / 1e9:.1f} GB)" for disk in vm.disks)
    lines.append(f"Disks: {disks}; all of them hold round {min(disk.round for disk in record.disks)} or later.\n")
    if plan.window:
        opening = next_opening(plan.window, datetime.now(UTC)).astimezone(zone_of(plan.window))
        lines.append(f"The plan's window: {plan.window.start} to {plan.window.end}, next from {moment(opening)}.\n")
    lines.append(
        f"If the guest doesn't shut down in {plan.shutdown.timeout_seconds:.0f} s: {plan.shutdown.on_timeout}."
    )
    return "\n".join(lines)


def parts_in_brief(verdict: Verdict) -> str:
    """What a prediction is made of, and what of it is no measurement."""
    return ", ".join(
        f"{name} {seconds:.0f} s{' assumed' if name in ASSUMED else ''}"
        for name, seconds in verdict.parts.items()
        if seconds
    )


def rounds_in_brief(rounds: Sequence[RoundResult]) -> str:
    """A table that fits into the form."""
    lines = ["| round | changed | time | downtime then |", "|---:|---:|---:|---:|"]
    for one in rounds:
        seconds = one.predicted_downtime_seconds
        downtime = "" if seconds is None else f"{seconds:.0f} s"
        lines.append(f"| {one.number}, {one.kind} | {size(one.changed_bytes)} | {one.seconds:.0f} s | {downtime} |")
    return "\n".join(lines)


def _wait_until(when: datetime) -> None:
    """Ends this process and has the run scheduled for `when`, if that lies ahead.

    A pause is what lets a run leave its process; leaving the pause for a time to come keeps the answers that were
    given, which a retry wouldn't.
    """
    if when <= datetime.now(UTC):
        return
    get_run_logger().info("The cutover waits until %s.", moment(when))
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(_run_id(), Paused(reschedule=True, timeout_seconds=3600, name=AWAITING_WINDOW))
        ordered: OrchestrationResult[None] = client.set_flow_run_state(
            _run_id(), Scheduled(name=AWAITING_WINDOW, scheduled_time=when)
        )
    if not ordered.state or not ordered.state.is_scheduled():
        raise Refused(f"Prefect didn't take the time {moment(when)}: {ordered.details}.", "Answer the gate again.")
    raise Pause(state=ordered.state)


def _questions() -> dict[int, Question]:
    """What this attempt of the run has asked so far, by number."""
    with get_client(sync_client=True) as client:
        inputs = client.filter_flow_run_input(_run_id(), key_prefix=f"{_prefix()}-", limit=200, exclude_keys=set())
    return {int(one.key.rsplit("-", 1)[1]): Question.model_validate_json(one.value) for one in inputs}


def _run_id() -> UUID:
    return UUID(flow_run.id)


def _prefix() -> str:
    return f"{QUESTION}-{flow_run.run_count}"
