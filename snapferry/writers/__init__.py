"""Where a disk's blocks go: writers for what an image can be."""

from snapferry.writers.comparing import ComparingWriter
from snapferry.writers.errors import FlushFailed, ImageBusy, NoSpace, WriteFailed, WrongImage
from snapferry.writers.raw import RawFileWriter

__all__ = ["ComparingWriter", "FlushFailed", "ImageBusy", "NoSpace", "RawFileWriter", "WriteFailed", "WrongImage"]
