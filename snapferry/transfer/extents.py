"""Runs of bytes on a disk."""


class Extents:
    """A frozen set of byte runs over two int64 arrays."""
