"""What can be wrong with the files of a VMDK."""

from typing import ClassVar

from snapferry.errors import TransferError


class VmdkError(TransferError):
    """A VMDK can't be read as it is; nothing that it says is used."""

    advice: ClassVar[str] = "Choose another route to this disk."

    def __init__(self, cause: str, next_step: str = "") -> None:
        super().__init__(cause, next_step or self.advice)


class FileUnreadable(VmdkError):
    """A file of a mounted datastore can't be read."""

    advice = "Look at the datastore's mount."


class DescriptorError(VmdkError):
    """The text isn't a VMDK descriptor that can be read."""

    advice = "Look at the descriptor on the datastore."


class VmdkCorrupt(VmdkError):
    """A file contradicts its own format, or says what can't be."""

    advice = "Check the disk on its host with `vmkfstools -x check`, or choose another route to it."


class VmdkTruncated(VmdkCorrupt):
    """A file ends before what it names."""


class VmdkInUse(VmdkError):
    """The tables can't be trusted: a running VM writes to the file, or the host crashed while one did."""

    advice = "Take a snapshot and read its frozen files, or start and stop the VM once so that the host repairs it."


class VmdkUnsupported(VmdkError):
    """The format, or something that the file uses of it, isn't one that Snapferry reads."""


class ChainError(VmdkError):
    """The files don't make up one disk: one is missing, comes twice, or doesn't fit its child."""

    advice = "Look at the snapshots of the VM: consolidate them or choose another route to this disk."
