"""Giving a migration up: what was made for it goes, the source stays as it is."""

from prefect import flow

from snapferry.flows.tasks import end_presync, reconcile_first, remove_all_of_ours
from snapferry.flows.work import opened, run_name
from snapferry.plan import MigrationPlan


@flow(name="abandon-vm", flow_run_name=run_name)
def abandon_vm(plan: MigrationPlan) -> list[str]:
    """Removes our snapshots from the VM, and our images and template from OpenNebula. The VM runs on at vCenter.

    Its scheduled pre-sync is paused, or it would copy the VM again at night. A VM that was migrated isn't touched.
    """
    with opened(plan) as (migration, watch):
        reconcile_first(migration, watch)
        removed = remove_all_of_ours(migration, watch)
        end_presync(plan.slug)
        return removed
