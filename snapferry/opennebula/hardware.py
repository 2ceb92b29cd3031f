"""The VM template that stands for a source VM: pure, from what is known of it.

Forms as OpenNebula 7.4 takes them: `FIRMWARE=UEFI` lets libvirt choose the firmware, with or without secure boot by
FIRMWARE_SECURE; `BIOS` overrides what a cluster may say; TOPOLOGY has to multiply to VCPU or instantiate fails.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from snapferry.opennebula.attributes import Attributes, Value, clean_text
from snapferry.plan import MigrationPlan
from snapferry.vsphere.models import SourceDisk, SourceVm

LABEL = "Snapferry"
_NOT_IN_HOST_NAMES = re.compile(r"[^A-Za-z0-9.-]+")


def build_template(
    vm: SourceVm,
    plan: MigrationPlan,
    disks: Sequence[tuple[SourceDisk, int]],
    nics: Sequence[Mapping[str, str]],
    extra: Attributes,
    *,
    dev_prefix: Literal["vd", "sd"] = "vd",
) -> dict[str, Value]:
    """All attributes of the template.

    Args:
        disks: each with its image's ID, in the order that the guest shall see; the first one boots.
        nics: vectors as `ensure_address` returns them.
        extra: further attributes, which win.
        dev_prefix: bus of the disks: `vd` virtio-blk, `sd` virtio-scsi.
    """
    attributes: dict[str, Value] = {
        **_capacity(vm),
        "HYPERVISOR": "kvm",
        "OS": _os(vm, bool(disks), dev_prefix),
        "CPU_MODEL": {"MODEL": "host-passthrough"},
        "FEATURES": _features(vm),
        "GRAPHICS": {"TYPE": "VNC", "LISTEN": "0.0.0.0"},  # noqa: S104 -- the address on the KVM host, as Sunstone has it
        "INPUT": {"TYPE": "tablet", "BUS": "usb"},
        "CONTEXT": {"NETWORK": "YES", "HOSTNAME": _host_name(vm, plan)},
        "LABELS": LABEL,
        "DESCRIPTION": clean_text(vm.annotation),
        "SNAPFERRY_SOURCE": _source(vm),
    }
    if disks:
        attributes["DISK"] = [
            {"IMAGE_ID": str(image_id), "DEV_PREFIX": dev_prefix, "TARGET": disk_target(dev_prefix, number)}
            for number, (_, image_id) in enumerate(disks)
        ]
    if nics:
        attributes["NIC"] = [dict(one) for one in nics]
    return {name: value for name, value in attributes.items() if value} | dict(extra)


def disk_target(prefix: str, number: int) -> str:
    """Name of the nth disk (from 0) as the guest sees it: `vda` … `vdz`, `vdaa` …"""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return prefix + letters


def is_windows(vm: SourceVm) -> bool:
    """Whether the guest is Windows, by the ID that vSphere has for it."""
    return vm.guest_id.lower().startswith("win")


def _capacity(vm: SourceVm) -> dict[str, Value]:
    cpus = str(vm.cpus)
    return {"CPU": cpus, "VCPU": cpus, "MEMORY": str(vm.memory_mib), "TOPOLOGY": _topology(vm)}


def _topology(vm: SourceVm) -> dict[str, str]:
    """Sockets and cores as on the source; one socket where they don't multiply to the CPUs."""
    cores = vm.cores_per_socket
    if cores < 1 or vm.cpus % cores:
        cores = vm.cpus
    return {"SOCKETS": str(vm.cpus // cores), "CORES": str(cores), "THREADS": "1"}


def _os(vm: SourceVm, has_disks: bool, dev_prefix: str) -> dict[str, str]:
    os = {"ARCH": "x86_64", "MACHINE": "q35", "FIRMWARE": "BIOS"}
    if vm.firmware == "efi":
        os |= {"FIRMWARE": "UEFI", "FIRMWARE_SECURE": "YES" if vm.secure_boot else "NO"}
    if has_disks:
        os["BOOT"] = "disk0"
    if dev_prefix == "sd":
        os["SD_DISK_BUS"] = "scsi"
    return os


def _features(vm: SourceVm) -> dict[str, str]:
    windows = "yes" if is_windows(vm) else "no"
    return {"ACPI": "yes", "APIC": "yes", "GUEST_AGENT": "yes", "LOCALTIME": windows, "HYPERV": windows}


def _host_name(vm: SourceVm, plan: MigrationPlan) -> str:
    """A name that a host may have, and that the frontend doesn't take for a variable."""
    for name in (vm.host_name, plan.target_name, vm.name):
        clean = _NOT_IN_HOST_NAMES.sub("-", name or "").strip("-.")
        if clean:
            return clean[:253]
    return ""


def _source(vm: SourceVm) -> dict[str, str]:
    """Where it comes from, for whoever looks at the template later."""
    values = {
        "VM": vm.name,
        "PATH": vm.path,
        "INSTANCE_UUID": vm.instance_uuid,
        "BIOS_UUID": vm.bios_uuid,
        "GUEST_ID": vm.guest_id,
        "GUEST_OS": vm.guest_full_name,
    }
    return {name: clean for name, value in values.items() if (clean := clean_text(value, 512))}
