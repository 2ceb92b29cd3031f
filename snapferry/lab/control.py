"""The lab's own control interface: digests and faults for tests, and what stands at both ends."""

import http.client
import json
import ssl
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from snapferry.lab.child import LabFailed
from snapferry.lab.config import Endpoints
from snapferry.plan import Frozen

CALL_SECONDS = 900.0
"""A digest over many GiB takes its time."""


class LabVmState(Frozen):
    """A VM of the simulated vCenter, as far as a migration may change it."""

    power: str
    """`poweredOn` or `poweredOff`"""
    snapshots: tuple[str, ...]
    """Names, oldest first."""
    change_tracking: bool
    consolidation_needed: bool
    nics_start_connected: tuple[bool, ...]
    annotation: str
    files: tuple[str, ...]
    """Of its folder on the datastore."""


class LabInventory(Frozen):
    """Everything that exists at both ends; equal before and after what must leave no trace."""

    vms: dict[str, LabVmState]
    """VMs of the simulated vCenter by name."""
    images: tuple[dict[str, Any], ...]
    """OpenNebula's images, with all that its state says of them; so for the others."""
    templates: tuple[dict[str, Any], ...]
    machines: tuple[dict[str, Any], ...]
    """VMs of OpenNebula that aren't done."""
    networks: tuple[dict[str, Any], ...]
    """With their address ranges and leases."""
    locks: tuple[dict[str, Any], ...]
    files: dict[str, Any]
    """Of OpenNebula's datastores, by the datastore's ID."""


class LabCounters(Frozen):
    """What was asked of the lab since it started."""

    nfc_bytes: dict[str, int]
    """`<VM's name>/<disk key>` -> bytes of disk data sent."""
    connections: int
    """NFC connections."""
    requests: int
    """NFC read requests."""
    folder_bytes: int
    """Bytes of files that vCenter served below `/folder`."""
    calls: dict[str, int]
    """SOAP calls by method."""
    one_calls: dict[str, int]
    """OpenNebula calls by method, as `image.update`."""
    sessions: int
    """vCenter sessions that are open now."""
    faults: dict[str, int]
    """How often each fault that waits for its occasion happened."""


class _Address(NamedTuple):
    host: str
    port: int


class LabControl:
    """Talks to a running lab. Every method raises LabFailed where the lab refuses or is gone."""

    def __init__(self, endpoints: Endpoints) -> None:
        url = urlsplit(endpoints.control_url)
        self._address = _Address(url.hostname or "", url.port or 443)
        self._token = endpoints.control_token
        self._context = ssl.create_default_context(cafile=endpoints.ca_file)

    def digest(self, vm_name: str, disk_index: int, snapshot: str | None = None) -> str:
        """SHA-256 (hex) over the disk's capacity, from the lab's own blocks.

        Args:
            disk_index: from 0, in the order of the disks' keys.
            snapshot: name or moref of a snapshot; without one the VM has to be off.
        """
        return str(self._call("digest", vm_name=vm_name, disk_index=disk_index, snapshot=snapshot))

    def extents_digest(self, vm_name: str, disk_index: int, snapshot: str | None = None) -> str:
        """The digest of `snapferry.lab.digest` that skips zeros, for huge sparse disks; otherwise as `digest`."""
        return str(self._call("extents_digest", vm_name=vm_name, disk_index=disk_index, snapshot=snapshot))

    def counters(self) -> LabCounters:
        return LabCounters.model_validate(self._call("counters"))

    def inventory(self) -> LabInventory:
        return LabInventory.model_validate(self._call("inventory"))

    def power(self, vm_name: str) -> str:
        """`poweredOn` or `poweredOff`"""
        return str(self._call("power", vm_name=vm_name))

    def power_on(self, vm_name: str) -> None:
        """Powers a VM on as somebody else would."""
        self._call("power_on", vm_name=vm_name)

    def power_off(self, vm_name: str) -> None:
        """Powers a VM off as somebody else would."""
        self._call("power_off", vm_name=vm_name)

    def last_sequence(self, vm_name: str) -> int:
        """Number of the guest's last write so far; of the last one of all once its VM is off."""
        return int(self._call("last_sequence", vm_name=vm_name))

    def expire_sessions(self) -> int:
        """Ends every vCenter session, as a long idle time would; returns how many there were."""
        return int(self._call("expire_sessions"))

    def set_fault(self, name: str, **arguments: Any) -> None:
        """Lets something go wrong, now or at the next occasion; lab.yaml's `faults` are set as this does.

        The names are in four tables: vCenter's own in `snapferry.lab.vcenter.faults.Faults`, what other people do there
        in `snapferry.lab.vcenter.acts`, the hosts' in `snapferry.lab.host.faults`, OpenNebula's (with `one_` before the
        name) in `snapferry.lab.opennebula.faults`.
        """
        self._call("set_fault", name=name, arguments=arguments)

    def clear_faults(self) -> None:
        self._call("clear_faults")

    def _call(self, method: str, **arguments: Any) -> Any:
        connection = http.client.HTTPSConnection(*self._address, timeout=CALL_SECONDS, context=self._context)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", f"/{method}", json.dumps(arguments), headers)
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LabFailed(f"The lab's control interface doesn't answer: {error}.", "Is the lab up?") from error
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise LabFailed(f"The lab refused {method}: {answer['error']}")
        return answer["result"]
