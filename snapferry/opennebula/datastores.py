"""Datastores: which one, and whether there is room."""

from collections.abc import Iterable

from snapferry.errors import Refused
from snapferry.opennebula import parse
from snapferry.opennebula.client import Client
from snapferry.opennebula.errors import NoSpace, NoSuchObject
from snapferry.opennebula.models import Datastore

IMAGE_KIND = 0
MIB = 1 << 20


def list_datastores(client: Client) -> list[Datastore]:
    """All datastores that the user may see."""
    return [parse.datastore(one) for one in client.call("datastorepool.info").iterfind("DATASTORE")]


def find_datastore(client: Client, reference: str | int) -> Datastore:
    """The image datastore of this name or ID.

    Raises:
        NoSuchObject: there is none; the message names those to choose from.
        Refused: several have the name, or it takes no images.
    """
    known = list_datastores(client)
    named = [one for one in known if one.name == reference]
    found = named or [one for one in known if str(one.id) == str(reference)]
    images = ", ".join(f"{one.name} ({one.id})" for one in known if one.kind == IMAGE_KIND)
    choose = f"Image datastores are: {images or 'none that this user may see'}."
    if not found:
        raise NoSuchObject(f"OpenNebula has no datastore {reference!r}.", choose)
    if len(found) > 1:
        ids = ", ".join(str(one.id) for one in found)
        raise Refused(f"Several datastores are named {reference!r}: {ids}.", "Give the plan the ID instead.")
    if found[0].kind != IMAGE_KIND:
        raise Refused(f"Datastore {found[0].name} ({found[0].id}) takes no images.", choose)
    return found[0]


def mib_of(size_bytes: int) -> int:
    """Whole MiB that hold so many bytes: OpenNebula knows no smaller size."""
    return -(-size_bytes // MIB)


def check_space(datastore: Datastore, sizes_bytes: int | Iterable[int], promised_mib: int = 0) -> int:
    """Whether the datastore takes so much more.

    OpenNebula reserves nothing: its figure is what was free at the last monitoring, whatever was allocated since. So
    what the plan itself has promised already is taken off.

    Args:
        datastore: freshly read.
        sizes_bytes: bytes of each disk to come, or of all together.
        promised_mib: MiB that the plan has allocated before and not filled yet.

    Returns:
        MiB that stay free once all is full.

    Raises:
        NoSpace: with the figures.
    """
    sizes = [sizes_bytes] if isinstance(sizes_bytes, int) else list(sizes_bytes)
    wanted = sum(mib_of(size) for size in sizes)
    where = f"Datastore {datastore.name} ({datastore.id})"
    if not datastore.total_mib:
        raise NoSpace(f"{where} has no known size: it isn't monitored yet.", "Check its drivers and wait a minute.")
    left = datastore.free_mib - promised_mib - wanted
    if left < 0:
        promised = f", {promised_mib} MiB of them promised" if promised_mib else ""
        raise NoSpace(
            f"{where} has {datastore.free_mib} MiB free{promised}; {wanted} MiB are needed, so {-left} are missing.",
            "Free space there, or name another image datastore in the plan.",
        )
    return left
