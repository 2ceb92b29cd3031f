"""The story: one file a flow, one task a step; no byte is moved here."""

from snapferry.flows.abandon import abandon_vm
from snapferry.flows.assess import assess_vms
from snapferry.flows.cutover import cutover_vm
from snapferry.flows.migrate import migrate_vm
from snapferry.flows.presync import presync_vm
from snapferry.flows.reconcile import reconcile_vms

__all__ = ["abandon_vm", "assess_vms", "cutover_vm", "migrate_vm", "presync_vm", "reconcile_vms"]
