"""Dead runs: an automation of Prefect marks a run whose heartbeats end as crashed.

A worker that dies with its host leaves its runs RUNNING for good, and each holds its deployment's only slot, so that no
scheduled run starts any more. Prefect's own heartbeats, an event every `HEARTBEAT_SECONDS`, tell a dead run from a long
one; a run that waits at its gate or for its window has said so, and isn't expected to give any.
"""

from datetime import timedelta
from typing import Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from snapferry.flows.gate import AWAITING_WINDOW
from snapferry.flows.migrate import WARM
from snapferry.flows.work import WAITS

AUTOMATION = "snapferry: dead runs"
HEARTBEAT_SECONDS = 30
"""The shortest that Prefect 3.8 takes."""
DEAD_SECONDS = 180.0
"""Longer than the term of a VM's lease: the run that starts next can have the VM at once."""
LEAST_SECONDS = HEARTBEAT_SECONDS + 10.0
_HEARTBEAT = "prefect.flow-run.heartbeat"
_QUIET = (
    "Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused", "Scheduled", "AwaitingRetry",
    AWAITING_WINDOW, WARM,
)  # fmt: skip
"""States after which no heartbeat is to be expected, by name: ends, and waits of every kind."""


def environment() -> dict[str, str]:
    """What a run's process needs so that it gives signs of life."""
    return {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}


def ensure_automation(
    client: SyncPrefectClient, flows: list[str], dead_seconds: float
) -> Literal["created", "updated"]:
    """Makes the automation, or brings it up to date; one that an operator has switched off stays off.

    Args:
        client: the server.
        flows: names of the flows whose runs it watches.
        dead_seconds: how long a run may give no sign.
    """
    known = client.read_automations_by_name(AUTOMATION)
    automation = AutomationCore(
        name=AUTOMATION,
        description="Marks runs of Snapferry that give no sign of life as crashed, so that the next one can start.",
        enabled=known[0].enabled if known else True,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": sorted(flows)}
            ),
            after={_HEARTBEAT},
            expect={_HEARTBEAT, WAITS, *(f"prefect.flow-run.{name}" for name in _QUIET)},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=dead_seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"No sign of life for {dead_seconds:.0f} s. The next run goes on; see `snapferry status`.",
            )
        ],
    )
    if known:
        client.update_automation(known[0].id, automation)
        return "updated"
    client.create_automation(automation)
    return "created"
