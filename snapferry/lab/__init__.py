"""A whole site in one folder: a simulated vCenter with hosts and running guests, and a simulated OpenNebula."""

from snapferry.lab.child import LabFailed
from snapferry.lab.config import Endpoints, LabConfig
from snapferry.lab.control import LabControl, LabCounters, LabInventory, LabVmState
from snapferry.lab.launch import Lab, describe, run, up

__all__ = [
    "Endpoints",
    "Lab",
    "LabConfig",
    "LabControl",
    "LabCounters",
    "LabFailed",
    "LabInventory",
    "LabVmState",
    "describe",
    "run",
    "up",
]
