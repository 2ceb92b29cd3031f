"""Plans become deployments; deployments are started, followed and, at their gate, answered."""

from snapferry.deployments.deploy import WORK_POOL, Deployed, deploy, plan_parameters
from snapferry.deployments.gates import Gate, answer_gate, waiting_gates
from snapferry.deployments.runs import Followed, Line, Started, Update, follow, start
from snapferry.flows.gate import CutoverAnswer

__all__ = [
    "WORK_POOL",
    "CutoverAnswer",
    "Deployed",
    "Followed",
    "Gate",
    "Line",
    "Started",
    "Update",
    "answer_gate",
    "deploy",
    "follow",
    "plan_parameters",
    "start",
    "waiting_gates",
]
