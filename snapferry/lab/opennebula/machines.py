"""`one.vm.*` but for `action` and `recover`."""

from snapferry.lab.opennebula import actions, life, placement, render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.devices import context_vector, order_devices
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.expand import (
    Request,
    build_machine,
    check_restricted,
)
from snapferry.lab.opennebula.objects import Kind, Machine, VmState
from snapferry.lab.opennebula.pools import select
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.shared import changed, shared_methods

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
} | shared_methods("vm", Kind.VM)
