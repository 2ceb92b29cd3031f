"""What vSphere says of a VM, from what the lab knows of it."""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from snapferry.lab.config import LabVm
from snapferry.lab.host.answers import FolderFile
from snapferry.lab.vcenter.hardware import disks_of, nics_of
from snapferry.lab.vcenter.inventory import seeded_uuid
from snapferry.lab.vcenter.store import Store

if TYPE_CHECKING:
    from snapferry.lab.vcenter.machine import SnapshotNode

FIRST_HARDWARE_WITH_TRACKING = 7


def copy_of(value: Any) -> Any:
    """A copy that may be changed."""
    return copy.deepcopy(value)


def config(vm: LabVm, home: str, seed: int) -> Any:
    """The VM's config without devices; `home` is `[san1] web01/web01`."""
    return vim.vm.ConfigInfo(
        changeVersion=datetime.now(UTC).isoformat(),
        modified=datetime.now(UTC),
        name=vm.name,
        guestFullName=vm.guest_full_name,
        guestId=vm.guest_id,
        version=f"vmx-{vm.hardware_version:02d}",
        uuid=seeded_uuid(seed, vm.folder, vm.name, "bios"),
        instanceUuid=seeded_uuid(seed, vm.folder, vm.name, "instance"),
        locationId=seeded_uuid(seed, vm.folder, vm.name, "location"),
        template=False,
        annotation="",
        files=vim.vm.FileInfo(vmPathName=f"{home}.vmx", snapshotDirectory=f"{home.rpartition('/')[0]}/"),
        firmware=vm.firmware,
        bootOptions=vim.vm.BootOptions(
            bootDelay=0, enterBIOSSetup=False, efiSecureBootEnabled=vm.secure_boot, bootRetryEnabled=False
        ),
        hardware=vim.vm.VirtualHardware(
            numCPU=vm.cpus,
            numCoresPerSocket=vm.cores_per_socket,
            memoryMB=vm.memory_mib,
            virtualICH7MPresent=False,
            virtualSMCPresent=False,
            device=[],
        ),
        changeTrackingEnabled=vm.change_tracking,
        cpuHotAddEnabled=False,
        memoryHotAddEnabled=False,
        extraConfig=[],
        swapPlacement="inherit",
    )


def capability(vm: LabVm) -> Any:
    """What the VM could do."""
    return vim.vm.Capability(
        snapshotOperationsSupported=True,
        multipleSnapshotsSupported=True,
        quiescedSnapshotsSupported=True,
        diskSharesSupported=True,
        changeTrackingSupported=vm.hardware_version >= FIRST_HARDWARE_WITH_TRACKING,
        secureBootSupported=vm.firmware == "efi",
    )


def guest(vm: LabVm, current: Any, *, running: bool, tools: bool) -> Any:
    """What VMware Tools tell, where they run; little else stays."""
    installed = vm.tools != "not-installed"
    speaks = running and tools and installed
    status = "toolsNotInstalled" if not installed else "toolsOk" if speaks else "toolsNotRunning"
    found = vim.vm.GuestInfo(
        toolsStatus=status,
        toolsRunningStatus="guestToolsRunning" if speaks else "guestToolsNotRunning",
        toolsVersionStatus="guestToolsUnmanaged" if installed else "guestToolsNotInstalled",
        toolsVersionStatus2="guestToolsUnmanaged" if installed else "guestToolsNotInstalled",
        toolsVersion="12389" if installed else "0",
        guestState="running" if speaks else "notRunning",
        guestOperationsReady=speaks,
        interactiveGuestOperationsReady=False,
        guestStateChangeSupported=speaks,
    )
    if speaks:
        family = "windowsGuest" if vm.guest_id.startswith("win") else "linuxGuest"
        found.guestId, found.guestFullName, found.guestFamily = vm.guest_id, vm.guest_full_name, family
        found.hostName = vm.host_name or vm.name
        found.net = [_guest_nic(nic, lab.ip) for nic, lab in zip(nics_of(current), vm.nics, strict=False)]
        found.ipAddress = next((lab.ip for lab in vm.nics if lab.ip), None)
    return found


def _guest_nic(nic: Any, ip: str | None) -> Any:
    addresses = [ip] if ip else []
    config = vim.net.IpConfigInfo(
        ipAddress=[
            vim.net.IpConfigInfo.IpAddress(ipAddress=one, prefixLength=24, state="preferred") for one in addresses
        ]
    )
    return vim.vm.GuestInfo.NicInfo(
        network=nic.backing.deviceName,
        ipAddress=addresses,
        macAddress=nic.macAddress,
        connected=nic.connectable.connected,
        deviceConfigId=nic.key,
        ipConfig=config if addresses else None,
    )


def layout(files: list[FolderFile]) -> Any:
    """The VM's files with their sizes; `size` is what they occupy, as on a thin datastore."""
    Info = vim.vm.FileLayoutEx.FileInfo
    found = [
        Info(key=key, name=one["path"], type=_file_type(one["name"]), size=one["allocated_bytes"])
        for key, one in enumerate(files)
    ]
    return vim.vm.FileLayoutEx(file=found, timestamp=datetime.now(UTC))


def _file_type(name: str) -> str:
    if name.endswith(("-flat.vmdk", "-sesparse.vmdk", "-delta.vmdk")):
        return "diskExtent"
    return {"vmdk": "diskDescriptor", "vmx": "config", "log": "log"}.get(name.rpartition(".")[2], "nvram")


def summary(store: Store, mo: Any) -> Any:
    """The summary, from the properties that it sums up."""
    now, runtime, tools = store.get(mo, "config"), store.get(mo, "runtime"), store.get(mo, "guest")
    return vim.vm.Summary(
        vm=mo,
        runtime=runtime,
        overallStatus="green",
        config=vim.vm.Summary.ConfigSummary(
            name=store.get(mo, "name"),
            template=now.template,
            vmPathName=now.files.vmPathName,
            memorySizeMB=now.hardware.memoryMB,
            numCpu=now.hardware.numCPU,
            numEthernetCards=len(nics_of(now)),
            numVirtualDisks=len(disks_of(now)),
            uuid=now.uuid,
            instanceUuid=now.instanceUuid,
            guestId=now.guestId,
            guestFullName=now.guestFullName,
            annotation=now.annotation,
        ),
        guest=vim.vm.Summary.GuestSummary(
            guestId=tools.guestId,
            guestFullName=tools.guestFullName,
            toolsStatus=tools.toolsStatus,
            toolsRunningStatus=tools.toolsRunningStatus,
            toolsVersionStatus2=tools.toolsVersionStatus2,
            hostName=tools.hostName,
            ipAddress=tools.ipAddress,
        ),
        quickStats=vim.vm.Summary.QuickStats(),
    )


def snapshot_info(vm: Any, nodes: "Sequence[SnapshotNode]") -> Any:
    """The tree of snapshots; None where there are none."""
    tree: list[Any] = []
    for node in reversed(nodes):
        tree = [
            vim.vm.SnapshotTree(
                snapshot=node.mo,
                vm=vm,
                name=node.name,
                description=node.description,
                id=node.number,
                createTime=node.created,
                state=node.power,
                quiesced=False,
                replaySupported=False,
                childSnapshotList=tree,
            )
        ]
    return vim.vm.SnapshotInfo(currentSnapshot=nodes[-1].mo, rootSnapshotList=tree) if nodes else None
