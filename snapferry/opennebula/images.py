"""Images: one per disk, empty, persistent, raw, and DISABLED while it syncs."""

from collections.abc import Mapping
from threading import Event
from typing import Literal, NoReturn

from snapferry.opennebula import parse
from snapferry.opennebula.attributes import Attributes, Value, change, check_name, holds, render, render_removal
from snapferry.opennebula.client import Client
from snapferry.opennebula.datastores import mib_of
from snapferry.opennebula.errors import ImageFailed, NoSuchObject, WrongState
from snapferry.opennebula.models import Image, ImageState
from snapferry.opennebula.waiting import wait_until

MAKE_SECONDS = 120.0
STATE_SECONDS = 30.0
DELETE_SECONDS = 120.0

_EVERYTHING = (-2, -1, -1)  # filter flag: whatever the user may see; from the first to the last
_MERGE = 1
_BUSY = (ImageState.INIT, ImageState.LOCKED)


def list_images(client: Client) -> list[Image]:
    """All images that the user may see, with their attributes."""
    return [parse.image(one) for one in client.call("imagepool.info", *_EVERYTHING).iterfind("IMAGE")]


def read_image(client: Client, image_id: int) -> Image:
    """One image, fresh. Raises NoSuchObject."""
    return parse.image(client.call("image.info", image_id))


def create_image(
    client: Client,
    *,
    name: str,
    size_bytes: int,
    datastore_id: int,
    image_type: Literal["OS", "DATABLOCK"],
    dev_prefix: Literal["vd", "sd"],
    attributes: Attributes,
    timeout_seconds: float = MAKE_SECONDS,
    stop: Event | None = None,
) -> Image:
    """Makes an empty raw persistent image and disables it, so that nothing starts from it before it is whole.

    Looks first: an image of a killed run is known by the same `SNAPFERRY` vector (or, without one, all `attributes`),
    which is part of the allocation; if nobody uses it, it is taken.

    Args:
        size_bytes: rounded up to whole MiB, since OpenNebula knows no smaller size.
        image_type, dev_prefix: `OS` for the disk that boots; `vd` for virtio, `sd` for SCSI.
        timeout_seconds: how long its driver may take.

    Raises:
        BadName, NotRepresentable, NameTaken, NoSpace, NotAllowed: nothing was made.
        ImageFailed: the driver failed, or left the image LOCKED; what was made is gone again.
        Stopped: the image stays and is found by the next call.
    """
    size_mib = mib_of(size_bytes)
    made = {"NAME": check_name(name), "TYPE": image_type, "FORMAT": "raw", "PERSISTENT": "YES"}
    text = render({**made, "SIZE": str(size_mib), "DEV_PREFIX": dev_prefix, **attributes})
    if found := _made_before(client, datastore_id, size_mib, attributes):
        ready = _wait_made(client, found.id, timeout_seconds, stop)
        if ready.state in (ImageState.READY, ImageState.DISABLED):
            return disable_image(client, ready.id)
        delete_image(client, ready.id, locked_seconds=0)
    image_id = int(client.call("image.allocate", text, datastore_id))
    ready = _wait_made(client, image_id, timeout_seconds, stop)
    if ready.state != ImageState.READY:
        _take_back(client, ready, timeout_seconds)
    return disable_image(client, image_id)


def _take_back(client: Client, image: Image, timeout_seconds: float) -> NoReturn:
    """Removes an image that couldn't be made, and says why it couldn't."""
    cause = f"OpenNebula couldn't make image {image.name}: {_failure(image, timeout_seconds)}"
    try:
        delete_image(client, image.id, locked_seconds=0)
    except ImageFailed as error:
        raise ImageFailed(f"{cause} {error.cause}", error.next_step) from error
    raise ImageFailed(cause, "See oned.log and the log of the datastore's driver.")


def disable_image(client: Client, image_id: int) -> Image:
    """Keeps the image from being used; done already is fine.

    Raises:
        WrongState: a machine uses it.
        ImageFailed: it didn't change in time.
    """
    return _switch(client, image_id, ImageState.DISABLED)


def enable_image(client: Client, image_id: int) -> Image:
    """Gives the image free; done already is fine. Raises as `disable_image`."""
    return _switch(client, image_id, ImageState.READY)


def update_image(client: Client, image_id: int, attributes: Attributes) -> None:
    """Sets attributes, each whole, and leaves the others; an empty one is removed.

    Raises:
        NotRepresentable: a value would not come back as it is; nothing was changed.
    """
    update(client, "image", image_id, attributes)


def update(client: Client, kind: Literal["image", "template", "vm"], object_id: int, attributes: Attributes) -> None:
    """What the updates of every kind of object share."""
    wanted = change(attributes)
    text, removal = render(wanted.set), render_removal(wanted.remove)
    if wanted.set:
        client.call(f"{kind}.update", object_id, text, _MERGE)
    if removal:
        client.call(f"{kind}.update", object_id, removal, _MERGE)


def rename_image(client: Client, image_id: int, name: str) -> None:
    """Renames; done already is fine. Raises NameTaken, BadName."""
    if read_image(client, image_id).name != check_name(name):
        client.call("image.rename", image_id, name)


def delete_image(
    client: Client,
    image_id: int,
    timeout_seconds: float = DELETE_SECONDS,
    stop: Event | None = None,
    *,
    locked_seconds: float = STATE_SECONDS,
) -> None:
    """Deletes the image and waits until it is gone; gone already is fine.

    An image that stays LOCKED without a SOURCE is left from a frontend that died right behind the allocation: nothing
    ever frees it, so after `locked_seconds` it is deleted by force.

    Raises:
        WrongState: a machine uses it.
        ImageFailed: the driver couldn't remove it, or not in time.
    """
    try:
        image = _wait_made(client, image_id, locked_seconds, stop)
        if image.state in _BUSY and not image.source:
            client.call("image.delete", image_id, True)
        elif image.state != ImageState.DELETE:
            client.call("image.delete", image_id)
    except NoSuchObject:
        return
    left, gone = wait_until(
        lambda: _read_or_none(client, image_id),
        lambda one: one is None or one.state == ImageState.ERROR,
        timeout_seconds,
        stop,
    )
    if left is not None:
        reason = _failure(left, timeout_seconds) if gone else f"it is still there after {timeout_seconds:g} s."
        step = "Remove its file in the datastore if there is one, then `oneimage delete --force`."
        raise ImageFailed(f"OpenNebula couldn't delete image {left.name} ({left.id}): {reason}", step)


def _switch(client: Client, image_id: int, wanted: ImageState) -> Image:
    image = _wait_made(client, image_id, STATE_SECONDS, None)
    if image.state == wanted:
        return image
    verb = "disabled" if wanted == ImageState.DISABLED else "enabled"
    if image.vms:
        users = ", ".join(str(one) for one in image.vms)
        step = "Terminate that machine first."
        raise WrongState(f"Image {image.name} ({image.id}) can't be {verb}: machine {users} uses it.", step)
    client.call("image.enable", image_id, wanted == ImageState.READY)
    image, done = wait_until(lambda: read_image(client, image_id), lambda one: one.state == wanted, STATE_SECONDS)
    if not done:
        raise ImageFailed(
            f"Image {image.name} ({image.id}) couldn't be {verb}: {_failure(image, STATE_SECONDS)}",
            "Look at the image in OpenNebula.",
        )
    return image


def _wait_made(client: Client, image_id: int, timeout_seconds: float, stop: Event | None) -> Image:
    """The image once the driver has made it, or failed, or the time is over."""
    return wait_until(lambda: read_image(client, image_id), lambda one: one.state not in _BUSY, timeout_seconds, stop)[
        0
    ]


def _made_before(client: Client, datastore_id: int, size_mib: int, attributes: Attributes) -> Image | None:
    identity: Mapping[str, Value] = attributes
    if "SNAPFERRY" in attributes:
        identity = {"SNAPFERRY": attributes["SNAPFERRY"]}
    if not any(identity.values()):
        return None
    fitting = [
        one
        for one in list_images(client)
        if (one.datastore_id, one.size_mib, one.persistent, one.format) == (datastore_id, size_mib, True, "raw")
        and not one.vms
        and holds(one.attributes, identity)
    ]
    return min(fitting, key=lambda one: one.id) if fitting else None


def _read_or_none(client: Client, image_id: int) -> Image | None:
    try:
        return read_image(client, image_id)
    except NoSuchObject:
        return None


def _failure(image: Image, timeout_seconds: float) -> str:
    if image.state == ImageState.LOCKED and not image.source:
        return f"it stayed LOCKED without a file for {timeout_seconds:g} s; the frontend or its driver died meanwhile."
    error = image.attributes.get("ERROR")
    return f"{error}." if isinstance(error, str) and error else f"it is in state {image.state.name}."
