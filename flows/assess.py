"""What a move would take: each VM's concerns and an estimate, before anything is touched."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from snapferry.assess import Assessment, assess
from snapferry.blocks import find_vcenter
from snapferry.flows.show import show_assessments
from snapferry.vsphere import Session, find_vm, list_vms
from snapferry.vsphere.models import SourceVm


@flow(name="assess-vms")
def assess_vms(vcenter: str = "vcenter", vms: list[str] | None = None) -> int:
    """Looks at VMs and says what stands in the way of moving them, and how long it would take. Changes nothing.

    Args:
        vcenter: Name of the block VCenter to ask.
        vms: Names, inventory paths or instance UUIDs; every VM of the inventory where none is named.

    Returns:
        How many VMs can't be moved as they are.
    """
    with find_vcenter(vcenter).session() as source:
        found = [find_vm(source, one) for one in vms] if vms else list_vms(source)
        assessments = [assess_vm(source, vm) for vm in found]
    show_assessments(assessments)
    return sum(not one.ready for one in assessments)


@task(task_run_name="assess {vm.name}", cache_policy=NO_CACHE)
def assess_vm(source: Session, vm: SourceVm) -> Assessment:
    """One VM's concerns and estimate."""
    return assess(source, vm)
