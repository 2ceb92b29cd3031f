"""Giving a migration up: what was made for it goes, the source stays as it is."""

from prefect import flow

from snapferry.flows.tasks import remove_all_of_ours
from snapferry.flows.work import opened, run_name
from snapferry.plan import MigrationPlan


@flow(name="abandon-vm", flow_run_name=run_name)
def abandon_vm(plan: MigrationPlan) -> list[str]:
    """Removes our snapshots from the VM, and our images and template from OpenNebula. The VM runs on at vCenter.

    A VM that was migrated isn't touched.
    """
    with opened(plan) as (migration, watch):
        return remove_all_of_ours(migration, watch)
