"""A simulated ESXi host: real VMDK files, change tracking, a guest that writes, NFC and `/folder`."""

from snapferry.lab.host.errors import HostError
from snapferry.lab.host.rpc import HostClient, serve
from snapferry.lab.host.service import HostService

__all__ = ["HostClient", "HostError", "HostService", "serve"]
