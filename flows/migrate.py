"""The whole move of one VM: rounds, the gate, the cutover, the report."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from snapferry.cutover import CutoverResult
from snapferry.flows.cutover import cut_over
from snapferry.flows.gate import pass_gate
from snapferry.flows.tasks import prepare_target, reconcile_first
from snapferry.flows.warm import cut_over_before, holds, warm_up
from snapferry.flows.work import opened, run_name
from snapferry.plan import MigrationPlan

WARM = "Warm"
"""Name of the state of a run that the plan ended before the gate."""


@flow(name="migrate-vm", flow_run_name=run_name)
def migrate_vm(plan: MigrationPlan) -> CutoverResult | State[None]:
    """Moves a running VM from vCenter to OpenNebula.

    While the VM runs, its disks are copied, then again and again what changed. The run then waits at the gate: it is
    suspended until a person approves the cutover, in this UI (Resume) or with `snapferry approve`. The VM is stopped
    only then, for the last changes; if a step fails before it runs at the target, it is started again where it was.
    """
    approval = None
    with opened(plan) as (migration, watch):
        if not cut_over_before(migration):
            reconcile_first(migration, watch)
            prepare_target(migration, watch)
            warm = warm_up(migration, watch)
            if holds(migration, warm):
                return Completed(name=WARM, message=f"Not converged: the plan holds {plan.vm} warm for the next run.")
            approval = pass_gate(migration)
    return cut_over(plan, approval)
