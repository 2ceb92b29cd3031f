"""What becomes of an image by itself: made, cloned, removed, taken by a VM and given back."""

import hashlib
from pathlib import Path

from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import Image, ImageStates
from snapferry.lab.opennebula.world import World, log_time

S = ImageStates


def new_source(world: World, image: Image) -> str:
    """Where its file will be: `BASE_PATH/<md5>`."""
    name = hashlib.md5(f"{world.seed}/{image.id}/{image.name}".encode(), usedforsecurity=False).hexdigest()
    return f"{world.datastores.get(image.datastore_id).base_path}/{name}"


def create(world: World, image: Image) -> None:
    """The driver makes an empty image, a moment from now."""
    if world.faults.strikes("image_stuck") is not None:
        return
    world.jobs.after(world.delay(world.config.image_delay), lambda: _created(world, image.id))


def _created(world: World, image_id: int) -> None:
    with world.lock:
        image = world.images.find(image_id)
        if image is None or image.state not in (S.LOCKED, S.LOCKED_USED, S.LOCKED_USED_PERS):
            return
        source = new_source(world, image)
        fault = world.faults.strikes("image_error")
        if fault is not None or image.size <= 0 or image.type not in (0, 2):
            fail(image, (fault or {}).get("message", "Error creating image: Command mkfs failed."))
            return
        world.store.create(Path(source), image.size << 20)
        image.source = source
        unlock(image)


def fail(image: Image, message: str) -> None:
    """The driver gave up: ERROR, with the reason in the image's TEMPLATE."""
    image.move(S.ERROR)
    image.attributes.set("ERROR", f"{log_time()} : {message}")


def unlock(image: Image) -> None:
    """The image is there: READY, or used by the VM that has waited for it."""
    image.move({S.LOCKED_USED: S.USED, S.LOCKED_USED_PERS: S.USED_PERS}.get(image.state, S.READY))


def clone(world: World, origin: Image, copy: Image) -> None:
    world.jobs.after(world.delay(world.config.image_delay), lambda: _cloned(world, origin.id, copy.id))


def _cloned(world: World, origin_id: int, copy_id: int) -> None:
    with world.lock:
        origin, copy = world.images.get(origin_id), world.images.get(copy_id)
        source, target = origin.source, new_source(world, copy)
    problem = ""
    try:
        world.store.copy(Path(source), Path(target))
    except OSError as error:
        problem = str(error)
    with world.lock:
        origin.cloning_ops -= 1
        if origin.state is S.CLONE and not origin.cloning_ops:
            origin.move(S.READY)
        copy.cloning_id = -1
        if problem:
            fail(copy, f"Error cloning image: {problem}")
        else:
            copy.source = target
            unlock(copy)


def remove(world: World, image: Image, force: bool) -> None:
    """The driver removes the file, a moment from now; without `force` a missing file ends in ERROR."""
    image.move(S.DELETE)
    if not image.source:
        world.images.drop(image.id)
        return
    world.jobs.after(world.delay(world.config.step_delay), lambda: _removed(world, image.id, force))


def _removed(world: World, image_id: int, force: bool) -> None:
    with world.lock:
        image = world.images.find(image_id)
        if image is None:
            return
        path = Path(image.source)
        if not path.exists() and not force:
            text = (
                "Error removing image from datastore. Retry the operation or manually remove image source  and run the "
                "delete --force operation to completely delete the image"
            )
            fail(image, text)
            return
        world.store.remove(path)
        world.images.drop(image_id)


def acquire(image: Image, vm_id: int, *, attach: bool = False) -> None:
    """A VM takes the image.

    Raises:
        OneError: INTERNAL, with the text for its state.
    """
    if image.state in (S.USED_PERS, S.LOCKED_USED_PERS):
        problem = "it is persistent and already in use"
    elif attach and image.state in (S.LOCKED, S.LOCKED_USED):
        problem = "it is locked"
    elif image.state in (S.READY, S.USED, S.LOCKED, S.LOCKED_USED):
        locked = image.state in (S.LOCKED, S.LOCKED_USED)
        image.vms.append(vm_id)
        if image.persistent:
            image.move(S.LOCKED_USED_PERS if locked else S.USED_PERS)
        else:
            image.move(S.LOCKED_USED if locked else S.USED)
        return
    else:
        problem = f"it is in state: {image.state.text}"
    raise OneError(Code.INTERNAL, f"Cannot acquire image {image.id}, {problem}")


def release(image: Image, vm_id: int, *, failed: bool = False) -> None:
    """A VM gives the image back; `failed` leaves a persistent one in ERROR, for somebody to look at."""
    if vm_id in image.vms:
        image.vms.remove(vm_id)
    if failed and image.state in (S.USED_PERS, S.LOCKED_USED_PERS):
        image.move(S.ERROR)
    elif not image.vms and image.state in (S.USED, S.USED_PERS):
        image.move(S.READY)
    elif not image.vms and image.state in (S.LOCKED_USED, S.LOCKED_USED_PERS):
        image.move(S.LOCKED)
