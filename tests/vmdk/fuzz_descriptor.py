"""Descriptors, and what a chain makes of the files and parents that they name."""

from snapferry.transfer import Extents
from snapferry.vmdk import Descriptor, open_chain

from .fuzzing import MemoryFolder, look_at_chain, with_named_errors

_SIZE = 64 << 10
_PARENT = b"""# Disk DescriptorFile
CID=00000001
parentCID=ffffffff
createType="vmfs"
RW 128 VMFS "web01-flat.vmdk"
"""


def one_input(data: bytes) -> None:
    with_named_errors(lambda: _text(data))
    with_named_errors(lambda: _chain(data))


def _text(data: bytes) -> None:
    read = Descriptor.decode("web01.vmdk", data)
    again = Descriptor.parse(read.text())
    assert (again.cid, again.parent_cid, again.create_type) == (read.cid, read.parent_cid, read.create_type)


def _chain(data: bytes) -> None:
    files = {"web01-000001.vmdk": data, "web01.vmdk": _PARENT, "web01-flat.vmdk": bytes(_SIZE), "b.vmdk": bytes(_SIZE)}
    chain = open_chain(MemoryFolder(files), "web01-000001.vmdk")
    look_at_chain(chain, Extents.whole(min(chain.capacity_bytes, 1 << 30)))
