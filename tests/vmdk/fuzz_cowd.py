"""COWD extents: header, directory, tables and what they say."""

from snapferry.vmdk.cowd import open_cowd

from .fuzzing import look_at_extent


def one_input(data: bytes) -> None:
    look_at_extent(data, open_cowd)
