"""Pre-sync: copies what changed while the VM runs, so that little is left for the cutover."""

from prefect import flow

from snapferry.cutover import under_way
from snapferry.flows.tasks import prepare_target, reconcile_first
from snapferry.flows.warm import warm_up
from snapferry.flows.work import opened, run_name
from snapferry.plan import MigrationPlan
from snapferry.record import RoundResult


@flow(name="presync-vm", flow_run_name=run_name)
def presync_vm(plan: MigrationPlan) -> RoundResult | None:
    """Copies a running VM's disks to OpenNebula, or what changed since the last time; its users notice nothing.

    The first run makes an image per disk and a template at the target. Every run then takes a snapshot, copies what
    changed, lets the snapshot go, and does so again while that makes the cutover shorter.
    """
    with opened(plan) as (migration, watch):
        reconcile_first(migration, watch)
        if migration.record and under_way(migration.record):
            return None
        prepare_target(migration, watch)
        return warm_up(migration, watch)
