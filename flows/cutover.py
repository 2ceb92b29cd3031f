"""The cutover: stop the VM at vCenter, copy the last changes, start it at OpenNebula."""

from prefect import flow

from snapferry.cutover import Approval, CutoverResult
from snapferry.flows.gate import pass_gate
from snapferry.flows.tasks import cut_over_now, end_presync, prepare_target, publish_report, reconcile_first
from snapferry.flows.warm import check_begun, cut_over_before, warm_up
from snapferry.flows.work import opened, run_name
from snapferry.plan import MigrationPlan


@flow(name="cutover-vm", flow_run_name=run_name)
def cutover_vm(plan: MigrationPlan) -> CutoverResult:
    """Cuts over a VM that has been copied before: it asks at the gate, as `migrate-vm` does.

    If a step fails before the VM runs at the target, the source is put back in service.
    """
    approval = None
    with opened(plan) as (migration, watch):
        if not cut_over_before(migration):
            reconcile_first(migration, watch)
            check_begun(migration)
            prepare_target(migration, watch)
            warm_up(migration, watch)
            approval = pass_gate(migration)
    return cut_over(plan, approval)


@flow(name="cut-over", flow_run_name="cut over {plan.slug}")
def cut_over(plan: MigrationPlan, approval: Approval | None) -> CutoverResult:
    """The cutover itself, which the flows call once the gate has been passed. It trusts nothing but the record.

    Args:
        plan: the VM's plan.
        approval: the answer at the gate; None where an approved cutover was interrupted, which is only ended then.
    """
    with opened(plan) as (migration, watch):
        result = cut_over_now(migration, watch, approval)
        publish_report(migration)
        end_presync(plan.slug)
        return result
