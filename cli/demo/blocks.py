"""The demo's blocks, as an operator would save them in the UI."""

from pathlib import Path

from snapferry.blocks import OpenNebula, VCenter
from snapferry.lab import Endpoints


def make_blocks(endpoints: Endpoints) -> None:
    """Saves `vcenter` and `opennebula`."""
    ca = Path(endpoints.ca_file).read_text(encoding="utf-8")
    vcenter = VCenter(
        host=endpoints.vcenter_host,
        port=endpoints.vcenter_port,
        user=endpoints.vcenter_user,
        password=endpoints.vcenter_password,
        ca=ca,
    )
    vcenter.save("vcenter", overwrite=True)
    opennebula = OpenNebula(
        endpoint=endpoints.opennebula_endpoint,
        user=endpoints.opennebula_user,
        password=endpoints.opennebula_password,
        ca=ca,
    )
    opennebula.save("opennebula", overwrite=True)
