"""The gates that wait for an answer, and how one is given from outside the Prefect UI."""

from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus

from snapferry.blocks import prefect_server
from snapferry.errors import Refused
from snapferry.flows.gate import QUESTION, CutoverAnswer, Question
from snapferry.plan import Frozen


class Gate(Frozen):
    """A flow run that waits for an answer."""

    flow_run_id: UUID
    run_name: str
    vm: str
    """The VM's name in vCenter: what has to be typed again."""
    asked: datetime
    expires: datetime | None
    """When the run fails for want of an answer."""
    text: str
    """What the form shows, in Markdown: the rounds, the predicted downtime, the proof."""


def waiting_gates(flow_run_id: UUID | None = None) -> list[Gate]:
    """Every gate that waits, the oldest first; or just that run's.

    Raises:
        Refused: Prefect doesn't answer.
    """
    suspended = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended"])))
    with prefect_server() as client:
        runs = client.read_flow_runs(flow_run_filter=suspended, limit=200)
        found = [_gate(client, run) for run in runs if flow_run_id in (None, run.id)]
    return sorted((one for one in found if one), key=lambda one: one.asked)


def answer_gate(flow_run_id: UUID, answer: CutoverAnswer) -> None:
    """Resumes a run with an answer. A wrong name isn't even sent.

    Raises:
        Refused: the run doesn't wait at a gate, the answer names another VM, or Prefect didn't take it.
    """
    gates = waiting_gates(flow_run_id)
    if not gates:
        raise Refused(
            f"The run {flow_run_id} doesn't wait at a gate.", "See `snapferry status` for the gates that wait."
        )
    if answer.vm.strip() != gates[0].vm:
        raise Refused(f"The answer names {answer.vm!r}, the VM is {gates[0].vm!r}.", "Type the VM's name exactly.")
    with prefect_server() as client:
        result = client.resume_flow_run(flow_run_id, run_input=answer.model_dump(mode="json"))
    # Prefect says 200 even where it refuses
    if result.status != SetStateStatus.ACCEPT:
        reason = getattr(result.details, "reason", None) or result.status.value
        raise Refused(f"Prefect didn't take the answer: {reason}.", "Look at the run in the UI, then answer again.")


def _gate(client: SyncPrefectClient, run: FlowRun) -> Gate | None:
    prefix = f"{QUESTION}-{run.run_count}-"
    inputs = client.filter_flow_run_input(run.id, key_prefix=prefix, limit=200, exclude_keys=set())
    if not inputs or run.state is None:
        return None
    last = max(inputs, key=lambda one: int(one.key.rsplit("-", 1)[1]))
    question = Question.model_validate_json(last.value)
    return Gate(
        flow_run_id=run.id,
        run_name=run.name,
        vm=question.vm,
        asked=question.asked,
        expires=run.state.state_details.pause_timeout,
        text=question.text,
    )
