"""What is true of disks on each kind of datastore: how their deltas are stored, and who may read which file when.

Facts: VMware's documents on snapshot formats, descriptors that hosts wrote, and what peers met in the field. Alike on
all kinds: NFC opens what is frozen and refuses the leaf of a running VM, and an export lease streams any snapshot.
"""

from enum import StrEnum
from typing import Final, Literal, NamedTuple

SESPARSE_FROM_BYTES: Final = 2 << 40
"""COWD counts sectors in 32 bits: from here on VMFS 5 and NFS take seSparse, too."""

KindName = Literal["vmfs6", "vmfs5", "nfs", "vsan"]


class DeltaFormat(NamedTuple):
    """How deltas are stored, and how a descriptor and vSphere call that."""

    create_type: str
    extent: str
    """Type of the extent in the descriptor."""
    suffix: str
    """Of the extent's file, behind the descriptor's stem."""
    vsphere: str
    """`deltaDiskFormat` of the disk's backing."""


COWD = DeltaFormat("vmfsSparse", "VMFSSPARSE", "-delta", "redoLogFormat")
SESPARSE = DeltaFormat("seSparse", "SESPARSE", "-sesparse", "seSparseFormat")
VSAN_SPARSE = DeltaFormat("vsanSparse", "VSANSPARSE", "", "redoLogFormat")


class Lock(StrEnum):
    """Which extents `/folder` doesn't give away while a VM is on."""

    CHAIN = "chain"
    """Every one, the base included."""
    LEAF = "leaf"
    """Those that are open for writing."""
    NONE = "none"


class DatastoreKind(NamedTuple):
    """The facts of one kind."""

    vsphere_type: str
    """`summary.type` of the datastore."""
    small: DeltaFormat
    large: DeltaFormat
    """From SESPARSE_FROM_BYTES on."""
    lock: Lock
    vmfs_version: str = ""
    has_files: bool = True
    """Whether extents are files of the datastore; else they are objects, and a descriptor names them by their URL."""

    def deltas(self, capacity_bytes: int) -> DeltaFormat:
        """The format of the deltas of a disk of that size."""
        return self.large if capacity_bytes >= SESPARSE_FROM_BYTES else self.small


KINDS: Final[dict[KindName, DatastoreKind]] = {
    "vmfs6": DatastoreKind("VMFS", SESPARSE, SESPARSE, Lock.CHAIN, vmfs_version="6.82"),
    "vmfs5": DatastoreKind("VMFS", COWD, SESPARSE, Lock.LEAF, vmfs_version="5.81"),
    "nfs": DatastoreKind("NFS", COWD, SESPARSE, Lock.NONE),
    "vsan": DatastoreKind("vsan", VSAN_SPARSE, VSAN_SPARSE, Lock.NONE, has_files=False),
}
