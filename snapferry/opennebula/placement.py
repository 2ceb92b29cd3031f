"""Where an image's bytes lie, proven before one of them is written.

Placement `image`: the worker writes into the image's own file, which its datastore's path leads to.
"""

import os
import stat
from pathlib import Path, PurePosixPath

from snapferry.errors import Refused
from snapferry.opennebula.client import Client
from snapferry.opennebula.datastores import MIB, mib_of
from snapferry.opennebula.errors import StorageNotReached, WrongFile
from snapferry.opennebula.images import read_image
from snapferry.opennebula.models import Datastore, Image

DRIVERS = ("shared", "local")


def check_placement(datastore: Datastore) -> None:
    """Whether disks can be synced straight into the images' files of this datastore.

    Raises:
        Refused: its drivers keep images otherwise.
        StorageNotReached: this worker doesn't see its folder.
    """
    where = f"Datastore {datastore.name} ({datastore.id})"
    if datastore.ds_mad != "fs" or datastore.tm_mad not in DRIVERS or not datastore.base_path:
        raise Refused(
            f"{where} has DS_MAD {datastore.ds_mad} and TM_MAD {datastore.tm_mad}: Snapferry can't write there yet.",
            f"Name a datastore with DS_MAD fs and TM_MAD {' or '.join(DRIVERS)} in the plan.",
        )
    base = Path(os.path.normpath(datastore.base_path))
    if not base.is_dir():
        raise StorageNotReached(f"This worker doesn't see {base}, the folder of {where}.", _mount(base))


def image_path(client: Client, image: Image, datastore: Datastore) -> Path:
    """The image's own file.

    Args:
        client: asked again for the image, so that an old reading leads nowhere.
        image: an image that OpenNebula made, empty or not.
        datastore: the one that it is in.

    Returns:
        The path of a regular file of the image's size that this process may write.

    Raises:
        Refused: the datastore's drivers keep images otherwise.
        StorageNotReached: folder or file isn't seen here, or may not be written.
        WrongFile: path and image don't fit each other.
    """
    check_placement(datastore)
    fresh = read_image(client, image.id)
    if (fresh.source, fresh.datastore_id) != (image.source, datastore.id):
        raise WrongFile(f"Image {image.name} ({image.id}) was replaced or moved meanwhile.", "Start again.")
    path = _path_below(fresh, datastore)
    _check_file(path, fresh)
    return path


def _path_below(image: Image, datastore: Datastore) -> Path:
    """SOURCE is BASE_PATH and one name; both are compared as the frontend says them, double slash and all."""
    name = image.source.removeprefix(f"{datastore.base_path}/")
    if not image.source or name == image.source or PurePosixPath(name).name != name or name in ("", ".", ".."):
        raise WrongFile(
            f"Image {image.name} ({image.id}) lies at {image.source or 'no path'}, not in its datastore's folder "
            f"{datastore.base_path}.",
            "Only images that OpenNebula itself made in that datastore are written.",
        )
    if image.format != "raw":
        raise WrongFile(
            f"Image {image.name} ({image.id}) is {image.format}, not raw.", "Remove DRIVER from the datastore."
        )
    return Path(os.path.normpath(datastore.base_path)) / name


def _check_file(path: Path, image: Image) -> None:
    """Opens the file as a writer would, and looks at what it opened; nothing is written."""
    what = f"{path}, the file of image {image.name} ({image.id}),"
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise StorageNotReached(
            f"This worker doesn't see {what} though its folder is there.", _mount(path.parent)
        ) from error
    except PermissionError as error:
        step = "Run the worker as the user who owns the datastore's files (oneadmin)."
        raise StorageNotReached(f"This worker may not write {what} as user {os.geteuid()}.", step) from error
    except OSError as error:
        raise WrongFile(f"{what} can't be opened as a file: {error.strerror}.", "Look at it on the storage.") from error
    try:
        found = os.fstat(handle)
    finally:
        os.close(handle)
    step = "Look at it on the storage; Snapferry writes only files as OpenNebula made them."
    if not stat.S_ISREG(found.st_mode):
        raise WrongFile(f"{what} is no regular file.", step)
    if found.st_nlink != 1:
        raise WrongFile(f"{what} has {found.st_nlink} names on the storage.", step)
    if os.geteuid() not in (0, found.st_uid):
        owner = f"user {found.st_uid}, not to user {os.geteuid()} whom the worker runs as"
        raise StorageNotReached(f"{what} belongs to {owner}.", "Run the worker as the files' owner (oneadmin).")
    if mib_of(found.st_size) != image.size_mib:
        raise WrongFile(f"{what} has {found.st_size} bytes, and OpenNebula made {image.size_mib * MIB}.", step)


def _mount(folder: Path) -> str:
    return f"Run the worker where {folder} is, or mount the datastore's storage there (the same share, the same path)."
