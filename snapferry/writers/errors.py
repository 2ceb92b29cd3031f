"""What can go wrong when blocks are written."""

from snapferry.errors import TransferError


class WrongImage(TransferError):
    """What lies at the path isn't the image that was meant; nothing was written to it."""


class ImageBusy(TransferError):
    """Somebody else holds the image; nothing was written to it."""


class WriteFailed(TransferError):
    """Bytes couldn't be written."""


class NoSpace(WriteFailed):
    """The file system, or a quota on it, is full."""


class FlushFailed(TransferError):
    """The kernel couldn't put what was written on stable storage: all since the last good flush has to be rewritten."""
