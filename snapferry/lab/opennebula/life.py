"""The life of a VM: waiting, PROLOG, BOOT, RUNNING, and its ends.

A step that was asked for begins a moment later, so that a reader may still see the old state. `Machine.step` counts the
transitions: what an earlier one has left to do is dropped.
"""

from collections.abc import Callable
from pathlib import Path

from snapferry.lab.opennebula import placement
from snapferry.lab.opennebula.devices import refresh_disk
from snapferry.lab.opennebula.expand import initial_state, release_devices
from snapferry.lab.opennebula.objects import Datastore, History, Host, ImageStates, Lcm, Machine, VmState
from snapferry.lab.opennebula.vm_files import bring_back, guest_writes, machine_folder, provide, transfers
from snapferry.lab.opennebula.world import World, log_time, now

_SOON = (0.01, 0.05)
_SCHEDULER_SECONDS = 0.4


def waiting(world: World, machine: Machine) -> None:
    """Puts a new, held or released VM where it waits: CLONING while an image of it is being made, HOLD, or PENDING."""
    machine.state, machine.lcm = initial_state(world, machine), Lcm.LCM_INIT
    machine.step += 1
    if machine.state is VmState.CLONING:
        _then(world, machine, lambda: _look_for_images(world, machine), _SOON)
    elif machine.state is VmState.PENDING:
        _then(world, machine, lambda: _schedule(world, machine), (_SCHEDULER_SECONDS / 2, _SCHEDULER_SECONDS))


def _look_for_images(world: World, machine: Machine) -> None:
    named = ((disk, world.images.find(int(disk.get("IMAGE_ID", "-1")))) for disk in machine.disks)
    pairs = [(disk, image) for disk, image in named if image]
    if any(image.state is ImageStates.ERROR for _, image in pairs):
        machine.state = VmState.CLONING_FAILURE
        return
    for disk, image in pairs:
        refresh_disk(disk, image)
    waiting(world, machine)


def _schedule(world: World, machine: Machine) -> None:
    found = placement.choose(world, machine)
    if found:
        deploy(world, machine, *found)
    else:
        _then(world, machine, lambda: _schedule(world, machine), (_SCHEDULER_SECONDS, _SCHEDULER_SECONDS))


def deploy(world: World, machine: Machine, host: Host, datastore: Datastore) -> None:
    """ACTIVE on this host, with its disks in this system datastore."""
    machine.state, machine.lcm = VmState.ACTIVE, Lcm.LCM_INIT
    machine.template.set("TM_MAD_SYSTEM", datastore.tm)
    graphics = machine.template.vector("GRAPHICS")
    if graphics is not None:
        graphics.setdefault("PORT", str(5900 + machine.id))
    host.vms.append(machine.id)
    machine.history.append(History(len(machine.history), host.id, host.name, datastore.id, datastore.tm))
    _then(world, machine, lambda: prolog(world, machine), _SOON)


def prolog(world: World, machine: Machine) -> None:
    """The driver provides the disks; runs without the lock while it copies."""
    machine.lcm = Lcm.PROLOG
    machine.attributes.remove("ERROR")
    machine.history[-1].times |= {"STIME": now(), "PSTIME": now()}
    work = transfers(world, machine)
    fault = world.faults.strikes("prolog")
    machine.step += 1
    number = machine.step

    def run() -> None:
        problem = "" if fault is None else fault.get("message", "the transfer driver failed")
        try:
            if not problem:
                provide(world.store, work)
        except OSError as error:
            problem = str(error)
        with world.lock:
            if machine.step == number:
                _prolog_done(world, machine, problem)

    world.jobs.after(world.delay(world.config.step_delay), run)


def _prolog_done(world: World, machine: Machine, problem: str) -> None:
    if problem:
        _failed(machine, Lcm.PROLOG_FAILURE, f"Error executing image transfer script: {problem}")
        return
    machine.history[-1].times["PETIME"] = now()
    boot(world, machine, Lcm.BOOT)


def boot(world: World, machine: Machine, lcm: Lcm) -> None:
    """BOOT, BOOT_POWEROFF or BOOT_SUSPENDED, then RUNNING."""
    machine.state, machine.lcm = VmState.ACTIVE, lcm
    machine.history[-1].times["RSTIME"] = now()
    _then(world, machine, lambda: _booted(world, machine))


def _booted(world: World, machine: Machine) -> None:
    writes = world.faults.strikes("guest_writes")
    if writes is not None:
        guest_writes(world, transfers(world, machine), int(writes.get("bytes", 1 << 20)))
    fault = world.faults.strikes("boot")
    if fault is not None:
        problem = f"Error deploying virtual machine: {fault.get('message', 'the hypervisor failed')}"
        if machine.lcm == Lcm.BOOT:
            _failed(machine, Lcm.BOOT_FAILURE, problem)
        else:
            machine.state = VmState.POWEROFF if machine.lcm == Lcm.BOOT_POWEROFF else VmState.SUSPENDED
            _failed(machine, Lcm.LCM_INIT, problem)
        return
    strange = world.faults.strikes("unknown_state")
    if strange is not None:
        machine.lcm = int(strange.get("lcm_state", 70))
        _then(world, machine, lambda: run(machine))
    else:
        run(machine)


def run(machine: Machine) -> None:
    """RUNNING, from now on."""
    machine.step += 1
    machine.state, machine.lcm = VmState.ACTIVE, Lcm.RUNNING
    machine.deploy_id, machine.last_poll = f"one-{machine.id}", now()


def _failed(machine: Machine, lcm: Lcm, message: str) -> None:
    machine.lcm = lcm
    machine.step += 1
    machine.attributes.set("ERROR", f"{log_time()}: {message}")


def through(world: World, machine: Machine, lcm: Lcm, then: Callable[[], None]) -> None:
    """A moment from now the VM is ACTIVE in this state, and one step later `then` runs."""
    soon(world, machine, lambda: pass_now(world, machine, lcm, then))


def pass_now(world: World, machine: Machine, lcm: Lcm, then: Callable[[], None]) -> None:
    """The VM is ACTIVE in this state, and one step later `then` runs."""
    machine.state, machine.lcm = VmState.ACTIVE, lcm
    _then(world, machine, then)


def rest(machine: Machine, state: VmState) -> None:
    """POWEROFF or SUSPENDED: off, its disks still on the host."""
    machine.state, machine.lcm, machine.last_poll = state, Lcm.LCM_INIT, 0
    machine.history[-1].times["RETIME"] = now()


def epilog(world: World, machine: Machine) -> None:
    """The driver brings the disks back to the images, then the VM is DONE."""
    machine.state, machine.lcm = VmState.ACTIVE, Lcm.EPILOG
    machine.history[-1].times["ESTIME"] = now()
    work, folder = transfers(world, machine), machine_folder(world, machine)
    machine.step += 1
    number = machine.step

    def run() -> None:
        problem = ""
        try:
            bring_back(world.store, work)
            world.store.remove(folder)
        except OSError as error:
            problem = str(error)
        with world.lock:
            if machine.step != number:
                return
            if problem:
                _failed(machine, Lcm.EPILOG_FAILURE, f"Error executing image transfer script: {problem}")
            else:
                done(world, machine)

    world.jobs.after(world.delay(world.config.step_delay), run)


def done(world: World, machine: Machine, *, failed: bool = False) -> None:
    """DONE: everything is given back."""
    machine.step += 1
    release_devices(world, machine, failed=failed)
    machine.state, machine.lcm, machine.etime, machine.lock = VmState.DONE, Lcm.LCM_INIT, now(), None
    if machine.history:
        host = world.hosts.find(machine.history[-1].host_id)
        if host and machine.id in host.vms:
            host.vms.remove(machine.id)
        machine.history[-1].times |= {"ETIME": now(), "EETIME": now()}


def destroy(world: World, machine: Machine) -> None:
    """`recover` with delete: nothing is copied back, and persistent images that were in use end in ERROR."""
    started = bool(machine.history)
    folder: Path | None = machine_folder(world, machine) if started else None
    machine.step += 1
    if folder is None:
        done(world, machine)
        return
    machine.state, machine.lcm = VmState.ACTIVE, Lcm.CLEANUP_DELETE
    number = machine.step

    def run() -> None:
        world.store.remove(folder)
        with world.lock:
            if machine.step == number:
                done(world, machine, failed=True)

    world.jobs.after(world.delay(world.config.step_delay), run)


def soon(world: World, machine: Machine, action: Callable[[], None]) -> None:
    """Runs `action` a moment from now."""
    _then(world, machine, action, _SOON)


def next_record(machine: Machine, action: int) -> None:
    """Closes the history record with this action and goes on in a new one."""
    last = machine.history[-1]
    last.action = action
    last.times["ETIME"] = now()
    times = {"STIME": now(), "RSTIME": now()}
    machine.history.append(History(last.seq + 1, last.host_id, last.host_name, last.datastore_id, last.tm, times))


def _then(world: World, machine: Machine, action: Callable[[], None], span: tuple[float, float] | None = None) -> None:
    """Runs `action` under the lock after a step's delay, unless another transition came first."""
    machine.step += 1
    number = machine.step

    def run() -> None:
        with world.lock:
            if machine.step == number:
                action()

    world.jobs.after(world.delay(span or world.config.step_delay), run)
