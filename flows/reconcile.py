"""Reconciling: both ends and the records are compared, what is safe is repaired, the rest is named."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from snapferry.blocks import find_opennebula, find_vcenter
from snapferry.flows.show import show_discrepancies
from snapferry.flows.work import log_discrepancies
from snapferry.opennebula import Client
from snapferry.reconcile import Discrepancy, reconcile
from snapferry.vsphere import Session
from snapferry.watch import Watch


@flow(name="reconcile-vms")
def reconcile_vms(vcenter: str = "vcenter", opennebula: str = "opennebula", vm: str | None = None) -> int:
    """Looks for what dead runs left at both ends, and repairs it where that is safe. Can be run at any time.

    Args:
        vcenter: Name of the block VCenter to ask.
        opennebula: Name of the block OpenNebula to ask.
        vm: One VM; all of them, and what belongs to none, where none is named.

    Returns:
        How many things need a person.
    """
    with find_vcenter(vcenter).session() as source, find_opennebula(opennebula).client() as target:
        found = reconcile_both_ends(source, target, vm)
    show_discrepancies(found)
    return sum(bool(one.needs) for one in found)


@task(cache_policy=NO_CACHE)
def reconcile_both_ends(source: Session, target: Client, vm: str | None) -> list[Discrepancy]:
    """Everything that is found, repaired where that is safe."""
    steps = get_run_logger()
    found = reconcile(source, target, vm, Watch(on_step=lambda name, detail: steps.info("%s: %s", name, detail)))
    log_discrepancies(found)
    return found
