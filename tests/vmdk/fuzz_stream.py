"""streamOptimized: header, markers and deflated grains, as they arrive."""

import io

from snapferry.transfer import Extents
from snapferry.vmdk import StreamOptimized

from .fuzzing import with_named_errors


def one_input(data: bytes) -> None:
    with_named_errors(lambda: _stream(data))


def _stream(data: bytes) -> None:
    stream = StreamOptimized(io.BytesIO(data).read, "disk.vmdk")
    pieces = []
    for block in stream.grains():
        assert block.data is not None
        assert len(block.data) == block.length
        pieces.append((block.offset, block.length))
    got = Extents.from_pairs(pieces, stream.capacity_bytes)
    assert got.total_bytes == sum(length for _, length in pieces)
