"""`one.image.*`."""

from collections.abc import Callable
from pathlib import Path

from snapferry.lab.opennebula import image_life, render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.datastores import IMAGE, SYSTEM, free_mib
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import IMAGE_TYPES, Datastore, Image, ImageStates, Kind
from snapferry.lab.opennebula.pools import select
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.shared import changed, check_free, check_name, shared_methods
from snapferry.lab.opennebula.world import now

S = ImageStates
DEV_PREFIX = "sd"
_OWN = ("NAME", "TYPE", "SIZE", "FORMAT", "PERSISTENT", "SOURCE", "PATH", "FS")
_DISKS = ("OS", "CDROM", "DATABLOCK")
_UNKNOWN_TYPE = -1


def _allocate(call: Call, text: str, datastore_id: int, skip_space: bool = False) -> int:
    world = call.world
    given = Attributes.parse(text)
    datastore = world.datastores.get(datastore_id)
    call.need(Op.USE, datastore)
    if not call.is_admin and given.get("SOURCE"):
        raise call.refuse("Template includes a restricted attribute SOURCE")
    image = _from_template(call, given, datastore)
    if not skip_space and image.size > free_mib(world, datastore):
        raise OneError(Code.ACTION, "Not enough space in datastore")
    _check_allocation(call, given, datastore)
    world.images.add(image)
    if image.source:
        image.registered = True
        image.move(S.READY)
    elif image.path:
        image_life.fail(image, "Error copying image in the datastore: this frontend copies nothing from PATH.")
    else:
        image_life.create(world, image)
    return image.id


def _from_template(call: Call, given: Attributes, datastore: Datastore) -> Image:
    kind = (given.get("TYPE") or "OS").upper()
    rest = given.without_empty()
    rest.remove(*_OWN)
    if not rest.get("DEV_PREFIX"):
        rest.set("DEV_PREFIX", DEV_PREFIX)
    return Image(
        id=call.world.images.next_id(), uid=call.user.id, gid=call.user.gid, name=given.get("NAME") or "",
        permissions=[1, 1, 0, 0, 0, 0, 0, 0, 0], attributes=rest, regtime=now(), modtime=now(),
        type=IMAGE_TYPES.index(kind) if kind in IMAGE_TYPES else _UNKNOWN_TYPE,
        persistent=(given.get("PERSISTENT") or "").upper() == "YES",
        datastore_id=datastore.id, size=_size(given, kind), format=given.get("FORMAT") or "raw",
        source=given.get("SOURCE") or "", path=given.get("PATH") or "",
    )  # fmt: skip


def _size(given: Attributes, kind: str) -> int:
    """SIZE in whole MiB; a type that isn't known, or a PATH, needs none."""
    size, path = given.get("SIZE") or "", given.get("PATH")
    if path and not given.get("SOURCE"):
        if not path.startswith("http") and not Path(path).exists():
            message = f"Cannot parse image SIZE: cannot access '{path}' (No such file or directory)"
            raise OneError(Code.INTERNAL, message)
        return Path(path).stat().st_size >> 20 if Path(path).exists() else 0
    if size.removeprefix("-").isdigit():
        return int(size)
    if kind in IMAGE_TYPES:
        raise OneError(Code.INTERNAL, "Cannot parse image SIZE: Wrong number or missing SIZE attribute.")
    return 0


def _check_allocation(call: Call, given: Attributes, datastore: Datastore) -> None:
    try:
        check_name(given.get("NAME") or "")
        check_free(call.world.pool(Kind.IMAGE), given.get("NAME") or "", call.user.id)
        if datastore.type == SYSTEM:
            raise OneError(Code.ALLOCATE, "New images can only be allocated in a files or image datastore.")
        if given.get("SOURCE") and given.get("PATH"):
            raise OneError(Code.ALLOCATE, "PATH and SOURCE cannot be both set.")
        if given.get("SOURCE") and not given.get("FORMAT"):
            raise OneError(Code.ALLOCATE, "SOURCE needs FORMAT to be set.")
    except OneError as error:
        raise OneError(Code.ALLOCATE, f"Error allocating a new image. {error.message}") from error


def _get(call: Call, image_id: int, op: Op) -> Image:
    image = call.world.images.get(image_id)
    call.need(op, image)
    return image


def _info(call: Call, image_id: int, decrypt: bool = False) -> str:
    return render.image(call.world, _get(call, image_id, Op.READ))


def _pool(call: Call, who: int, first: int, last: int) -> str:
    chosen = select(call, call.world.images, who, first, last)
    return f"<IMAGE_POOL>{''.join(render.image(call.world, it) for it in chosen)}</IMAGE_POOL>"


def _update(call: Call, image_id: int, text: str, mode: int = 0) -> int:
    image = _get(call, image_id, Op.MANAGE)
    new = changed(image.attributes, text, mode)
    if not call.is_admin:
        new.remove("SOURCE")
    if not new.get("DEV_PREFIX"):
        new.set("DEV_PREFIX", DEV_PREFIX)
    image.attributes = new
    return image_id


def _enable(call: Call, image_id: int, enable: bool) -> int:
    image = _get(call, image_id, Op.MANAGE)
    sources = {S.DISABLED, S.ERROR, S.READY} if enable else {S.READY, S.ERROR, S.DISABLED}
    if image.state not in sources:
        verb = "enable" if enable else "disable"
        message = f"Could not {verb} image: Image cannot be in state {image.state.text}."
        raise OneError(Code.INTERNAL, message)
    image.move(S.READY if enable else S.DISABLED)
    return image_id


def _persistent(call: Call, image_id: int, persistent: bool) -> int:
    image = _get(call, image_id, Op.MANAGE)
    if image.persistent == persistent:
        return image_id
    if image.state in (S.USED, S.USED_PERS, S.CLONE, S.LOCKED_USED, S.LOCKED_USED_PERS, S.DELETE):
        verb = "persistent" if persistent else "non-persistent"
        raise OneError(Code.INTERNAL, f"Could not make image {verb}: Image cannot be in state {image.state.text}.")
    image.persistent = persistent
    return image_id


def _chtype(call: Call, image_id: int, kind: str) -> int:
    image = _get(call, image_id, Op.MANAGE)
    name = kind.upper()
    if name not in IMAGE_TYPES:
        raise OneError(Code.INTERNAL, "known type ")
    if name not in _DISKS:
        message = "Cannot change image type to an incompatible type for the current datastore."
        raise OneError(Code.ACTION, message)
    image.type = IMAGE_TYPES.index(name)
    return image_id


def delete(call: Call, image_id: int, force: bool = False) -> int:
    """Begins to delete an image. Raises OneError where it is locked, in use, or not the caller's."""
    image = call.world.images.get(image_id)
    making = image.state in (S.LOCKED, S.LOCKED_USED, S.LOCKED_USED_PERS)
    if making and not force:
        message = "Image locked, use --force flag to remove the image. Force delete may leave some files on Datastore"
        raise OneError(Code.INTERNAL, message, image_id)
    if force:
        image.attributes.set("FORCE_DELETE", "YES")
    call.need(Op.ADMIN if making else Op.MANAGE, image)
    if image.vms:
        raise OneError(Code.ACTION, f"Cannot delete image. There are {len(image.vms)} VMs using it.")
    if image.state is S.CLONE:
        message = f"Cannot delete image. There are {image.cloning_ops} active clone operations."
        raise OneError(Code.ACTION, message)
    image_life.remove(call.world, image, force)
    return image_id


def _clone(call: Call, image_id: int, name: str, datastore_id: int = -1, persistent: bool = False) -> int:
    world = call.world
    origin = world.images.get(image_id)
    datastore = world.datastores.get(origin.datastore_id if datastore_id == -1 else datastore_id)
    if datastore.type != IMAGE:
        raise OneError(Code.ACTION, "Clone only supported for IMAGE_DS Datastores")
    if origin.size > free_mib(world, datastore):
        raise OneError(Code.ACTION, "Not enough space in datastore")
    call.need(Op.USE, origin)
    call.need(Op.USE, datastore)
    try:
        check_name(name)
        check_free(world.pool(Kind.IMAGE), name, call.user.id)
        if origin.state not in (S.READY, S.USED, S.CLONE):
            raise OneError(Code.ALLOCATE, f"Cannot clone image in state: {origin.state.text}")
    except OneError as error:
        raise OneError(Code.ALLOCATE, f"Error allocating a new image. {error.message}") from error
    copy = Image(
        id=world.images.next_id(), uid=call.user.id, gid=call.user.gid, name=name, type=origin.type,
        attributes=origin.attributes.copy(), regtime=now(), modtime=now(), persistent=persistent,
        datastore_id=datastore.id, size=origin.size, format=origin.format, cloning_id=origin.id,
    )  # fmt: skip
    world.images.add(copy)
    origin.cloning_ops += 1
    if origin.state is S.READY:
        origin.move(S.CLONE)
    image_life.clone(world, origin, copy)
    return copy.id


_RUN: dict[str, tuple[str, int, Callable[..., int | str]]] = {
    "image.allocate": ("sib", 2, _allocate),
    "image.info": ("ib", 1, _info),
    "imagepool.info": ("iii", 3, _pool),
    "image.update": ("isi", 2, _update),
    "image.enable": ("ib", 2, _enable),
    "image.persistent": ("ib", 2, _persistent),
    "image.chtype": ("is", 2, _chtype),
    "image.delete": ("ib", 1, delete),
    "image.clone": ("isib", 2, _clone),
}

METHODS: Methods = {name: Method(*spec) for name, spec in _RUN.items()} | shared_methods("image", Kind.IMAGE)
