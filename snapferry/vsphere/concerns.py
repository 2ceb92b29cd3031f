"""What stands in the way of a move, or changes with it: named, with a severity; pure.

The names follow Forklift's, so that people who know them find them again.
"""

import re
from collections.abc import Iterator
from typing import Literal

from snapferry.plan import Frozen
from snapferry.vsphere.change_tracking import OLDEST_HARDWARE, can_be_tracked
from snapferry.vsphere.models import PowerState, SourceDisk, SourceVm
from snapferry.vsphere.snapshots import PREFIX

Severity = Literal["critical", "warning", "info"]
UNSUPPORTED_GUESTS = re.compile(
    r"(darwin|netware|nwware|solaris|opensolaris|os2|eComStation|openServer|unixWare|vmkernel|dos|win31|win9[58]|winMe|"
    r"winNT|win2000|win3_1)",
    re.IGNORECASE,
)
"""Guest ids of systems that virt-v2v doesn't make fit for KVM."""
LONGEST_NAME = 128
"""Characters in the name of an OpenNebula object."""


class Concern(Frozen):
    """One thing that the operator should know of before a move."""

    id: str
    """`change-tracking-off`, …"""
    severity: Severity
    """`critical`: the move is refused; `warning`: it may go otherwise than expected; `info`: good to know."""
    text: str
    next_step: str


def concerns(vm: SourceVm, *, tracked: bool = True) -> list[Concern]:
    """The concerns of a VM, critical ones first.

    Args:
        vm: the VM.
        tracked: whether change tracking shall tell what changed.
    """
    order = ("critical", "warning", "info")
    found = [*_of_vm(vm), *_of_tracking(vm, tracked), *_of_guest(vm), *_of_nics(vm), *_of_devices(vm)]
    found += [one for disk in vm.disks for one in _of_disk(vm, disk)]
    return sorted(found, key=lambda one: order.index(one.severity))


def _critical(name: str, text: str, next_step: str) -> Concern:
    return Concern(id=name, severity="critical", text=text, next_step=next_step)


def _warning(name: str, text: str, next_step: str) -> Concern:
    return Concern(id=name, severity="warning", text=text, next_step=next_step)


def _info(name: str, text: str, next_step: str = "") -> Concern:
    return Concern(id=name, severity="info", text=text, next_step=next_step)


def _of_vm(vm: SourceVm) -> Iterator[Concern]:
    if vm.is_template:
        yield _critical("template", f"{vm.name} is a template.", "Convert it to a virtual machine first.")
    if not vm.disks:
        yield _critical("no-disks", f"{vm.name} has no disk.", "There is nothing to move.")
    if not 0 < len(vm.name) <= LONGEST_NAME or not vm.name.isprintable() or vm.name != vm.name.strip():
        yield _warning("name-invalid", f"{vm.name!r} can't be a name in OpenNebula.", "Give the plan a target_name.")
    if vm.power is PowerState.SUSPENDED:
        yield _warning("suspended", f"{vm.name} is suspended.", "Resume it, or shut it down, before the cutover.")
    if vm.consolidation_needed:
        yield _warning(
            "consolidation-needed",
            f"{vm.name} needs a disk consolidation: files of an old snapshot weren't merged.",
            "Choose Snapshots > Consolidate in vCenter.",
        )
    foreign = [one.name for one in vm.snapshots if not one.name.startswith(PREFIX)]
    if foreign and vm.change_tracking:
        yield _info("snapshots-present", f"{vm.name} has snapshots: {', '.join(foreign)}.", "They aren't moved.")


def _of_tracking(vm: SourceVm, tracked: bool) -> Iterator[Concern]:
    foreign = [one.name for one in vm.snapshots if not one.name.startswith(PREFIX)]
    if not vm.change_tracking_supported or 0 < vm.hardware_version < OLDEST_HARDWARE:
        yield Concern(
            id="change-tracking-unsupported",
            severity="critical" if tracked else "warning",
            text=f"{vm.name} can't track changes (hardware version {vm.hardware_version}).",
            next_step=f"Upgrade its virtual hardware to {OLDEST_HARDWARE} or later.",
        )
    elif not tracked:
        return
    elif not vm.change_tracking and foreign:
        yield _critical(
            "snapshots-present",
            f"{vm.name} has snapshots ({', '.join(foreign)}), and change tracking is off.",
            "Remove them: change tracking can only be switched on without.",
        )
    elif not vm.change_tracking:
        yield _warning(
            "change-tracking-off",
            f"Change tracking of {vm.name} is off.",
            "It is switched on with a snapshot that is made and removed, unless the plan forbids it.",
        )


def _of_disk(vm: SourceVm, disk: SourceDisk) -> Iterator[Concern]:
    where = f"{disk.label} of {vm.name}"
    shutdown = "Copy it by other means, or change its mode while the VM is powered off."
    if not disk.datastore or disk.datastore_kind == "inaccessible":
        yield _critical("datastore-missing", f"The datastore of {where} isn't accessible.", "Mount it again.")
    if disk.capacity_bytes <= 0 or disk.capacity_bytes % 512:
        text = f"{where} has a capacity of {disk.capacity_bytes} bytes."
        yield _critical("invalid-disk-capacity", text, "See its descriptor; a capacity is a multiple of 512.")
    if disk.backing_type == "rdm-physical":
        text = f"{where} is a raw LUN in physical mode: no snapshot freezes it."
        yield _critical("rdm", text, "Make it a virtual mode mapping, or copy the LUN by other means.")
    elif disk.backing_type == "rdm-virtual":
        yield _warning("rdm", f"{where} is a raw LUN in virtual mode.", "It becomes an image as any other disk.")
    if disk.mode.startswith("independent"):
        yield _critical("independent-disk", f"{where} is independent: no snapshot freezes it.", shutdown)
    if disk.sharing:
        text = f"{where} is shared with other VMs: no snapshot freezes it."
        yield _critical("shared-disk", text, "Move the cluster's shared data by other means.")
    if vm.change_tracking and can_be_tracked(disk) and not disk.change_id:
        text = f"{where} has no change id although change tracking is on."
        yield _warning("disk-change-tracking-off", text, "It is brought about by a snapshot made and removed.")


def _of_guest(vm: SourceVm) -> Iterator[Concern]:
    if UNSUPPORTED_GUESTS.match(vm.guest_id):
        text = f"{vm.guest_full_name or vm.guest_id} isn't made fit for KVM by virt-v2v."
        yield _warning("guest-unsupported", text, "Try it first with a rehearsal.")
    if vm.power is not PowerState.ON:
        return
    if vm.tools != "running":
        text = f"VMware Tools of {vm.name} are {vm.tools.replace('-', ' ')}: the guest can't be asked to shut down."
        yield _warning("tools-not-running", text, "Start them, or let the plan say shutdown.on_timeout: power-off.")
        return
    if not vm.host_name:
        text = f"VMware Tools of {vm.name} report no host name."
        yield _warning("host-name-empty", text, "Set it in the guest, or give the plan a target_name.")


def _of_nics(vm: SourceVm) -> Iterator[Concern]:
    if vm.power is not PowerState.ON or vm.tools != "running":
        return
    for nic in vm.nics:
        if nic.connected and not nic.ips:
            text = f"The address of the network card {nic.mac} ({nic.network}) isn't known."
            yield _warning("ip-missing", text, "It gets one from the target network; keep_ip can't keep it.")


def _of_devices(vm: SourceVm) -> Iterator[Concern]:
    for device in vm.devices:
        name, _, detail = device.partition(":")
        if name == "guest-space-low":
            text = f"The guest's {detail} has too little free space for virt-v2v."
            yield _critical(name, text, "Free at least 100 MiB there (50 MiB in /boot).")
        elif name in _DEVICES:
            severity, text, next_step = _DEVICES[name]
            yield Concern(id=name, severity=severity, text=text.format(vm=vm.name), next_step=next_step)


_PINNED = "Set CPU pinning and NUMA topology in the OpenNebula template if it still wants them."
_HOTPLUG = "Set it in the OpenNebula template if it is still wanted."
_DEVICES: dict[str, tuple[Severity, str, str]] = {
    "pci-passthrough": ("critical", "{vm} uses a host's PCI device directly.", "Remove the device before the move."),
    "vgpu": ("critical", "{vm} uses a virtual GPU.", "Remove it before the move; set one up at the target."),
    "scsi-passthrough": ("critical", "{vm} uses a host's SCSI device directly.", "Remove it before the move."),
    "nvdimm": ("critical", "{vm} has persistent memory (NVDIMM).", "Move its data to a disk first."),
    "sriov": ("warning", "{vm} has an SR-IOV network card.", "It becomes a virtio card."),
    "vtpm": ("warning", "{vm} has a virtual TPM; its secrets aren't moved.", "Suspend BitLocker and the like first."),
    "usb": ("warning", "{vm} has a USB device attached.", "It isn't moved; attach it at the target."),
    "encrypted": ("warning", "{vm} is encrypted by vSphere.", "What is read through the host may be cipher text."),
    "question": ("warning", "{vm} waits for an answer to a question.", "Answer it in vCenter."),
    "cpu-affinity": ("warning", "{vm} is bound to certain CPUs.", _PINNED),
    "memory-affinity": ("warning", "{vm}'s memory is bound to certain NUMA nodes.", _PINNED),
    "numa-affinity": ("warning", "{vm} is bound to certain NUMA nodes.", _PINNED),
    "cpu-hotplug": ("warning", "{vm} allows CPUs to be added while it runs.", _HOTPLUG),
    "memory-hotplug": ("warning", "{vm} allows memory to be added while it runs.", _HOTPLUG),
    "serial": ("info", "{vm} has a serial port.", "It isn't moved."),
    "parallel": ("info", "{vm} has a parallel port.", "It isn't moved."),
    "fault-tolerance": ("info", "{vm} is protected by Fault Tolerance.", "Switch it off: it allows no snapshots."),
}
