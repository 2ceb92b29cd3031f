"""`one.vm.*` but for `action` and `recover`."""

from snapferry.lab.opennebula import actions, leases, life, placement, render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.devices import context_vector, order_devices
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.expand import (
    Request,
    add_security_rules,
    build_machine,
    check_restricted,
    take_disk,
    take_nic,
)
from snapferry.lab.opennebula.image_life import release
from snapferry.lab.opennebula.objects import Kind, Lcm, Machine, VmState
from snapferry.lab.opennebula.pools import select
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.shared import changed, shared_methods
from snapferry.lab.opennebula.vm_files import machine_folder, provide, transfers

ANY_STATE, NOT_DONE = -2, -1
_CONFIGURABLE = ("OS", "FEATURES", "INPUT", "GRAPHICS", "VIDEO", "RAW", "CONTEXT", "CPU_MODEL", "BACKUP_CONFIG", "TPM")
_KEPT = {"OS": ("UUID", "MACHINE"), "GRAPHICS": ("PORT",)}


def _allocate(call: Call, text: str, hold: bool = False) -> int:
    given = Attributes.parse(text)
    check_restricted(call, given)
    machine = build_machine(call, Request(given, given.get("NAME") or "", hold))
    life.waiting(call.world, machine)
    return machine.id


def _get(call: Call, vm_id: int, op: Op) -> Machine:
    machine = call.world.machines.get(vm_id)
    call.need(op, machine)
    return machine


def _info(call: Call, vm_id: int, decrypt: bool = False) -> str:
    return render.machine(call.world, _get(call, vm_id, Op.READ))


def _chosen(call: Call, who: int, first: int, last: int, state: int, query: str) -> list[Machine]:
    if query:
        raise OneError(Code.INTERNAL, "JSON query search is not supported by the SQL backend")
    machines = [
        it for it in call.world.machines
        if state == ANY_STATE or (it.state is not VmState.DONE if state == NOT_DONE else it.state == state)
    ]  # fmt: skip
    return select(call, machines, who, first, last)


def _pool(call: Call, who: int, first: int, last: int, state: int, query: str = "") -> str:
    chosen = _chosen(call, who, first, last, state, query)
    return f"<VM_POOL>{''.join(render.machine_in_pool(call.world, it) for it in chosen)}</VM_POOL>"


def _pool_extended(call: Call, who: int, first: int, last: int, state: int, query: str = "") -> str:
    chosen = _chosen(call, who, first, last, state, query)
    return f"<VM_POOL>{''.join(render.machine(call.world, it, last_history_only=True) for it in chosen)}</VM_POOL>"


def _update(call: Call, vm_id: int, text: str, mode: int = 0) -> int:
    machine = _get(call, vm_id, Op.MANAGE)
    machine.attributes = changed(machine.attributes, text, mode)
    return vm_id


def _deploy(
    call: Call, vm_id: int, host_id: int, enforce: bool = False, datastore_id: int = -1, extra: str = ""
) -> int:
    world = call.world
    host, machine = world.hosts.get(host_id), world.machines.get(vm_id)
    datastore = placement.pick_datastore(world, machine, datastore_id)
    call.need(Op.ADMIN, machine)
    if machine.state not in (VmState.PENDING, VmState.HOLD):
        raise OneError(Code.ACTION, f"Deploy action is not available for state {machine.state_text}")
    life.deploy(world, machine, host, datastore)
    return vm_id


def _attach_nic(call: Call, vm_id: int, text: str) -> int:
    machine = _get(call, vm_id, Op.MANAGE)
    given = Attributes.parse(text)
    check_restricted(call, given)
    nic = given.vector("NIC")
    if nic is None:
        raise OneError(Code.ACTION, "Attribute NIC cannot be empty.")
    lcm = _hotplug(machine, "Could not add a new NIC to VM", Lcm.HOTPLUG_NIC, Lcm.HOTPLUG_NIC_POWEROFF)
    _action_text(lambda: take_nic(call, machine, nic))
    add_security_rules(machine)
    _refresh(call, machine)
    _hotplugged(call, machine, lcm, 23)
    return vm_id


def _detach_nic(call: Call, vm_id: int, nic_id: int) -> int:
    machine = _get(call, vm_id, Op.MANAGE)
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
    _hotplugged(call, machine, lcm, 24)
    return vm_id


def _attach(call: Call, vm_id: int, text: str) -> int:
    machine = _get(call, vm_id, Op.MANAGE)
    disk = Attributes.parse(text).vector("DISK")
    if disk is None:
        raise OneError(Code.ACTION, "Attribute DISK cannot be empty.")
    lcm = _hotplug(machine, "Could not add a new disk to VM", Lcm.HOTPLUG, Lcm.HOTPLUG_PROLOG_POWEROFF)
    _action_text(lambda: take_disk(call, machine, disk, attach=True))
    path = machine_folder(call.world, machine) / f"disk.{machine.disks[-1]['DISK_ID']}"
    provide(call.world.store, [one for one in transfers(call.world, machine) if one.target == path])
    _hotplugged(call, machine, lcm, 21)
    return vm_id


def _detach(call: Call, vm_id: int, disk_id: int) -> int:
    machine = _get(call, vm_id, Op.MANAGE)
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
    _hotplugged(call, machine, lcm, 22)
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


def _action_text(take: object) -> None:
    try:
        take()  # type: ignore[operator]
    except OneError as error:
        raise OneError(Code.ACTION, error.message) from error


def _refresh(call: Call, machine: Machine) -> None:
    """Context and boot order after a change of the NICs."""
    if machine.context:
        own = {name: value for name, value in machine.context.items() if not name.startswith("ETH")}
        machine.context = context_vector(call.world, machine, own)


def _updateconf(call: Call, vm_id: int, text: str, mode: int = 0) -> int:
    """Replaces (0) or merges (1) what may be changed of a VM's configuration: OS, FEATURES, CONTEXT and so on."""
    machine = _get(call, vm_id, Op.MANAGE)
    able = machine.state in (VmState.PENDING, VmState.HOLD, VmState.POWEROFF, VmState.UNDEPLOYED, VmState.CLONING)
    if not able and not actions.running(machine):
        raise OneError(Code.ACTION, f"configuration cannot be updated in state {machine.state_text}")
    given = Attributes([(name, value) for name, value in Attributes.parse(text) if name in _CONFIGURABLE])
    old = machine.template.copy()
    for name in _CONFIGURABLE if mode == 0 else {name for name, _ in given}:
        kept = {key: value for key, value in (old.vector(name) or {}).items() if key in _KEPT.get(name, ())}
        new = [value for key, value in given if key == name and value]
        machine.template.remove(name)
        for value in new or ([kept] if kept else []):
            if name != "CONTEXT":
                machine.template.add(name, {**kept, **value} if isinstance(value, dict) else value)
    context = given.vector("CONTEXT")
    if context:
        disk = {key: value for key, value in (machine.context or {}).items() if key in ("DISK_ID", "TARGET")}
        machine.context = context_vector(call.world, machine, {**context, **disk})
    try:
        order_devices(machine)
    except OneError as error:
        machine.template = old
        order_devices(machine)
        raise OneError(Code.ACTION, error.message) from error
    return vm_id


METHODS: Methods = {
    "vm.allocate": Method("sb", 1, _allocate),
    "vm.info": Method("ib", 1, _info),
    "vmpool.info": Method("iiiis", 4, _pool),
    "vmpool.infoextended": Method("iiiis", 4, _pool_extended),
    "vm.update": Method("isi", 2, _update),
    "vm.updateconf": Method("isi", 2, _updateconf),
    "vm.deploy": Method("iibis", 2, _deploy),
    "vm.action": Method("si", 2, actions.action),
    "vm.recover": Method("ii", 2, actions.recover),
    "vm.attachnic": Method("is", 2, _attach_nic),
    "vm.detachnic": Method("ii", 2, _detach_nic),
    "vm.attach": Method("is", 2, _attach),
    "vm.detach": Method("ii", 2, _detach),
} | shared_methods("vm", Kind.VM)
