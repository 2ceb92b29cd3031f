"""What every kind of object can do the same way: update, rename, permissions, locks."""

from collections.abc import Callable

from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import Kind, Lock, Thing
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.world import Pool, now

_BAD_NAME = set("&|:\\\";/'#{}$<>")


def check_name(name: str) -> None:
    """Raises OneError (INTERNAL) for a name that no object may have."""
    if not name:
        raise OneError(Code.INTERNAL, "Invalid NAME, it cannot be empty")
    bad = next((char for char in name if char in _BAD_NAME), None)
    if bad:
        raise OneError(Code.INTERNAL, f"Invalid NAME, char '{bad}' is not allowed")
    if len(name) > 128:
        raise OneError(Code.INTERNAL, "Invalid NAME, max length is 128 chars")


def check_free(pool: Pool[Thing], name: str, uid: int) -> None:
    """Raises OneError (INTERNAL) where this owner has an object of that name."""
    taken = pool.named(name, uid)
    if taken:
        raise OneError(Code.INTERNAL, f"NAME is already taken by {pool.kind.auth} {taken.id}.")


def changed(old: Attributes, text: str, mode: int) -> Attributes:
    """The attributes after an update; mode 0 replaces them all, mode 1 merges by name.

    Raises:
        OneError: API for another mode, INTERNAL where the text can't be read.
    """
    if mode not in (0, 1):
        raise OneError(Code.API, "Wrong update type")
    try:
        new = Attributes.parse(text)
    except OneError as error:
        raise OneError(error.code, f"Cannot update template. {error.message}") from error
    if mode == 0:
        return new.without_empty()
    merged = old.copy()
    merged.merge(new)
    return merged


def _rename(kind: Kind) -> Callable[..., int]:
    def rename(call: Call, thing_id: int, name: str) -> int:
        pool = call.world.pool(kind)
        thing = pool.get(thing_id)
        if thing.name == name:
            return thing_id
        call.need(Op.MANAGE, thing)
        taken = pool.named(name, thing.uid) if kind is not Kind.VM else None
        if taken:
            message = f"{kind.label} cannot be renamed to {name} because it collides with {kind.label} {taken.id}"
            raise OneError(Code.ACTION, message)
        try:
            check_name(name)
        except OneError as error:
            raise OneError(Code.ACTION, error.message) from error
        thing.name = name
        return thing_id

    return rename


def _chmod(kind: Kind) -> Callable[..., int]:
    def chmod(call: Call, thing_id: int, *bits: int) -> int:
        thing = call.world.pool(kind).get(thing_id)
        call.need(Op.MANAGE, thing)
        if any(bit not in (-1, 0, 1) for bit in bits):
            raise OneError(Code.INTERNAL, "New permission values must be -1, 0 or 1")
        thing.permissions = [old if new == -1 else new for old, new in zip(thing.permissions, bits, strict=True)]
        return thing_id

    return chmod


def _chown(kind: Kind) -> Callable[..., int]:
    def chown(call: Call, thing_id: int, uid: int, gid: int) -> int:
        world = call.world
        thing = world.pool(kind).get(thing_id)
        user, group = (world.users.get(uid) if uid >= 0 else None), (world.groups.get(gid) if gid >= 0 else None)
        call.need(Op.MANAGE, thing)
        if user:
            call.need(Op.MANAGE, user)
            thing.uid = user.id
        if group:
            thing.gid = group.id
        return thing_id

    return chown


def _lock(kind: Kind) -> Callable[..., int]:
    def lock(call: Call, thing_id: int, level: int, test: bool = False) -> int:
        thing = call.world.pool(kind).get(thing_id)
        call.need(Op.MANAGE, thing, past_lock=True)
        if level not in (1, 2, 3, 4):
            raise OneError(Code.ACTION, "Wrong lock level specified")
        if test and thing.lock:
            raise OneError(Code.ACTION, str(thing.lock.time))
        if thing.lock and thing.lock.owner != call.user.id and not call.is_admin:
            raise OneError(Code.ACTION, "Error trying to lock the resource.")
        thing.lock = Lock(1 if level == 4 else level, call.user.id, now(), call.request_id)
        return thing_id

    return lock


def _unlock(kind: Kind) -> Callable[..., int]:
    def unlock(call: Call, thing_id: int) -> int:
        thing = call.world.pool(kind).get(thing_id)
        call.need(Op.MANAGE, thing, past_lock=True)
        if thing.lock and thing.lock.owner != call.user.id and not call.is_admin:
            raise OneError(Code.ACTION, "Cannot unlock: Lock is owned by another user")
        thing.lock = None
        return thing_id

    return unlock


def shared_methods(name: str, kind: Kind) -> Methods:
    """`<name>.rename`, `chmod`, `chown`, `lock` and `unlock`."""
    return {
        f"{name}.rename": Method("is", 2, _rename(kind)),
        f"{name}.chmod": Method("i" * 10, 10, _chmod(kind)),
        f"{name}.chown": Method("iii", 3, _chown(kind)),
        f"{name}.lock": Method("iib", 2, _lock(kind)),
        f"{name}.unlock": Method("i", 1, _unlock(kind)),
    }
