"""`one.vm.action` and `one.vm.recover`: what may be done in which state."""

from collections.abc import Callable

from snapferry.lab.opennebula import life
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import Lcm, Machine, VmState
from snapferry.lab.opennebula.world import World

_NUMBERS = {
    "hold": 7, "release": 8, "suspend": 10, "resume": 11, "reboot": 15, "reboot-hard": 16, "poweroff": 19,
    "poweroff-hard": 20, "terminate": 27, "terminate-hard": 28,
}  # fmt: skip


def running(machine: Machine) -> bool:
    return machine.state is VmState.ACTIVE and machine.lcm == Lcm.RUNNING


def _hold(world: World, machine: Machine) -> bool:
    if machine.state not in (VmState.PENDING, VmState.CLONING):
        return False
    machine.hold = True
    life.waiting(world, machine)
    return True


def _release(world: World, machine: Machine) -> bool:
    if machine.state is not VmState.HOLD and not (machine.state is VmState.CLONING and machine.hold):
        return False
    machine.hold = False
    life.waiting(world, machine)
    return True


def _poweroff(world: World, machine: Machine) -> bool:
    if not running(machine):
        return False
    life.through(world, machine, Lcm.SHUTDOWN_POWEROFF, lambda: life.rest(machine, VmState.POWEROFF))
    return True


def _suspend(world: World, machine: Machine) -> bool:
    if not running(machine):
        return False
    life.through(world, machine, Lcm.SAVE_SUSPEND, lambda: life.rest(machine, VmState.SUSPENDED))
    return True


def _resume(world: World, machine: Machine) -> bool:
    states = {VmState.POWEROFF: Lcm.BOOT_POWEROFF, VmState.SUSPENDED: Lcm.BOOT_SUSPENDED}
    if machine.state not in states:
        return False
    life.next_record(machine, machine.history[-1].action)
    lcm = states[machine.state]
    life.soon(world, machine, lambda: life.boot(world, machine, lcm))
    return True


def _reboot(world: World, machine: Machine) -> bool:
    return running(machine)


def _terminate(world: World, machine: Machine) -> bool:
    if machine.state in (VmState.PENDING, VmState.HOLD, VmState.CLONING, VmState.CLONING_FAILURE):
        life.done(world, machine)
    elif machine.state in (VmState.POWEROFF, VmState.SUSPENDED):
        life.soon(world, machine, lambda: life.epilog(world, machine))
    elif running(machine):
        life.through(world, machine, Lcm.SHUTDOWN, lambda: life.epilog(world, machine))
    else:
        return False
    return True


_ACTIONS: dict[str, Callable[[World, Machine], bool]] = {
    "hold": _hold,
    "release": _release,
    "poweroff": _poweroff,
    "poweroff-hard": _poweroff,
    "suspend": _suspend,
    "resume": _resume,
    "reboot": _reboot,
    "reboot-hard": _reboot,
    "terminate": _terminate,
    "terminate-hard": _terminate,
}


def action(call: Call, name: str, vm_id: int) -> int:
    """Does `name`, or says that it isn't available in this state; stop and undeploy aren't simulated."""
    machine = call.world.machines.get(vm_id)
    call.need(Op.MANAGE, machine)
    act = _ACTIONS.get(name)
    if act is None:
        raise OneError(Code.ACTION, f'Action "{name}" is not supported')
    state = machine.state_text
    if not act(call.world, machine):
        message = f'Error performing action "{name}": This action is not available for state {state}'
        raise OneError(Code.ACTION, message)
    if machine.history:
        last = machine.history[-1]
        last.action, last.uid, last.gid, last.request_id = _NUMBERS[name], call.user.id, call.user.gid, call.request_id
    return vm_id


def recover(call: Call, vm_id: int, operation: int) -> int:
    """0 failure, 1 success, 2 retry, 3 delete, 5 delete from the database."""
    world = call.world
    machine = world.machines.get(vm_id)
    call.need(Op.ADMIN, machine)
    act = {0: _fail, 1: _succeed, 2: _retry, 3: _destroy, 5: _forget}.get(operation)
    if act is None:
        raise OneError(Code.ACTION, "Wrong recovery operation code")
    if not act(world, machine):
        raise OneError(Code.ACTION, f"Recover action is not available for state {machine.state_text}")
    return vm_id


def _fail(world: World, machine: Machine) -> bool:
    ends = {Lcm.PROLOG: Lcm.PROLOG_FAILURE, Lcm.BOOT: Lcm.BOOT_FAILURE, Lcm.EPILOG: Lcm.EPILOG_FAILURE}
    if machine.state is not VmState.ACTIVE or machine.lcm not in ends:
        return False
    machine.step += 1
    machine.lcm = ends[Lcm(machine.lcm)]
    return True


def _succeed(world: World, machine: Machine) -> bool:
    if machine.state is not VmState.ACTIVE:
        return False
    if machine.lcm in (Lcm.PROLOG, Lcm.PROLOG_FAILURE):
        life.boot(world, machine, Lcm.BOOT)
    elif machine.lcm in (Lcm.BOOT, Lcm.BOOT_FAILURE):
        life.run(machine)
    elif machine.lcm in (Lcm.EPILOG, Lcm.EPILOG_FAILURE):
        life.done(world, machine)
    else:
        return False
    return True


def _retry(world: World, machine: Machine) -> bool:
    if machine.state is not VmState.ACTIVE:
        return False
    if machine.lcm == Lcm.PROLOG_FAILURE:
        life.soon(world, machine, lambda: life.prolog(world, machine))
    elif machine.lcm == Lcm.BOOT_FAILURE:
        life.soon(world, machine, lambda: life.boot(world, machine, Lcm.BOOT))
    elif machine.lcm == Lcm.EPILOG_FAILURE:
        life.soon(world, machine, lambda: life.epilog(world, machine))
    else:
        return False
    return True


def _destroy(world: World, machine: Machine) -> bool:
    if machine.state is VmState.DONE:
        return False
    life.destroy(world, machine)
    return True


def _forget(world: World, machine: Machine) -> bool:
    if machine.state is not VmState.DONE:
        life.done(world, machine)
    return True
