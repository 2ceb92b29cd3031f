"""What an operator configures once: fields, and one method that opens the engine's session."""

from snapferry.blocks.opennebula import OpenNebula
from snapferry.blocks.prefect_api import prefect_address, prefect_server
from snapferry.blocks.resolve import find_opennebula, find_vcenter
from snapferry.blocks.vcenter import VCenter

__all__ = ["OpenNebula", "VCenter", "find_opennebula", "find_vcenter", "prefect_address", "prefect_server"]
