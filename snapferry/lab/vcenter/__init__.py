"""A simulated vCenter for the stock pyVmomi client."""

from snapferry.lab.vcenter.server import VCenterServer
from snapferry.lab.vcenter.service import ADMINISTRATOR, VCenter

__all__ = ["ADMINISTRATOR", "VCenter", "VCenterServer"]
