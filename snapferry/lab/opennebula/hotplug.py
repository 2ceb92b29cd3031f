"""NICs and disks that come and go while a VM runs or is off. A disk's file is there when the call returns."""

from collections.abc import Callable

from snapferry.lab.opennebula import actions, leases, life
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.devices import context_vector
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.expand import add_security_rules, check_restricted, check_uses, take_disk, take_nic
from snapferry.lab.opennebula.image_life import release
from snapferry.lab.opennebula.objects import Lcm, Machine, VmState
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.vm_files import machine_folder, provide, transfers

_ATTACH_DISK, _DETACH_DISK, _ATTACH_NIC, _DETACH_NIC = 21, 22, 23, 24
"""Numbers of the actions in a history record."""


def _get(call: Call, vm_id: int) -> Machine:
    machine = call.world.machines.get(vm_id)
    call.need(Op.MANAGE, machine)
    return machine


def _attach_nic(call: Call, vm_id: int, text: str) -> int:
    machine = _get(call, vm_id)
    given = Attributes.parse(text)
    check_restricted(call, given)
    nic = given.vector("NIC")
    if nic is None:
        raise OneError(Code.ACTION, "Attribute NIC cannot be empty.")
    lcm = _hotplug(machine, "Could not add a new NIC to VM", Lcm.HOTPLUG_NIC, Lcm.HOTPLUG_NIC_POWEROFF)
    check_uses(call, given)
    _as_action(lambda: take_nic(call, machine, nic))
    add_security_rules(machine)
    _refresh(call, machine)
    _hotplugged(call, machine, lcm, _ATTACH_NIC)
    return vm_id


def _detach_nic(call: Call, vm_id: int, nic_id: int) -> int:
    machine = _get(call, vm_id)
    what = f"Could not detach NIC with NIC_ID {nic_id} from VM"
    lcm = _hotplug(machine, what, Lcm.HOTPLUG_NIC, Lcm.HOTPLUG_NIC_POWEROFF)
    nic = next((nic for nic in machine.nics if nic["NIC_ID"] == str(nic_id)), None)
    if nic is None:
        raise OneError(Code.ACTION, f"{what} {vm_id}, it does not exist.")
    machine.nics.remove(nic)
    network = call.world.networks.find(int(nic.get("NETWORK_ID", "-1")))
    if network:
        leases.release(network, vm_id, nic.get("MAC", ""))
    _refresh(call, machine)
    _hotplugged(call, machine, lcm, _DETACH_NIC)
    return vm_id


def _attach(call: Call, vm_id: int, text: str) -> int:
    machine = _get(call, vm_id)
    given = Attributes.parse(text)
    check_restricted(call, given)
    disk = given.vector("DISK")
    if disk is None:
        raise OneError(Code.ACTION, "Attribute DISK cannot be empty.")
    lcm = _hotplug(machine, "Could not add a new disk to VM", Lcm.HOTPLUG, Lcm.HOTPLUG_PROLOG_POWEROFF)
    check_uses(call, given)
    _as_action(lambda: take_disk(call, machine, disk, attach=True))
    path = machine_folder(call.world, machine) / f"disk.{machine.disks[-1]['DISK_ID']}"
    provide(call.world.store, [one for one in transfers(call.world, machine) if one.target == path])
    _hotplugged(call, machine, lcm, _ATTACH_DISK)
    return vm_id


def _detach(call: Call, vm_id: int, disk_id: int) -> int:
    machine = _get(call, vm_id)
    what = f"Could not detach disk with DISK_ID {disk_id} from VM"
    lcm = _hotplug(machine, what, Lcm.HOTPLUG, Lcm.HOTPLUG_EPILOG_POWEROFF)
    disk = next((disk for disk in machine.disks if disk["DISK_ID"] == str(disk_id)), None)
    if disk is None:
        raise OneError(Code.ACTION, f"{what} {vm_id}, it does not exist.")
    path = machine_folder(call.world, machine) / f"disk.{disk_id}"
    for one in transfers(call.world, machine):
        if one.target == path and one.returns and one.source:
            call.world.store.copy(path, one.source)
    call.world.store.remove(path)
    machine.disks.remove(disk)
    image = call.world.images.find(int(disk.get("IMAGE_ID", "-1")))
    if image:
        release(image, vm_id)
    _hotplugged(call, machine, lcm, _DETACH_DISK)
    return vm_id


def _hotplug(machine: Machine, what: str, on: Lcm, off: Lcm) -> Lcm:
    """The state to pass through; raises OneError (ACTION) where the VM neither runs nor is off."""
    if actions.running(machine):
        return on
    if machine.state is VmState.POWEROFF:
        return off
    raise OneError(Code.ACTION, f"{what} {machine.id}, wrong state {machine.state_text}.")


def _hotplugged(call: Call, machine: Machine, lcm: Lcm, number: int) -> None:
    life.next_record(machine, number)
    if actions.running(machine):
        life.pass_now(call.world, machine, lcm, lambda: life.run(machine))
    else:
        life.pass_now(call.world, machine, lcm, lambda: life.rest(machine, VmState.POWEROFF))


def _as_action(take: Callable[[], object]) -> None:
    try:
        take()
    except OneError as error:
        raise OneError(Code.ACTION, error.message) from error


def _refresh(call: Call, machine: Machine) -> None:
    """The context's variables after a change of the NICs."""
    if machine.context:
        own = {name: value for name, value in machine.context.items() if not name.startswith("ETH")}
        machine.context = context_vector(call.world, machine, own)


METHODS: Methods = {
    "vm.attachnic": Method("is", 2, _attach_nic),
    "vm.detachnic": Method("ii", 2, _detach_nic),
    "vm.attach": Method("is", 2, _attach),
    "vm.detach": Method("ii", 2, _detach),
}
