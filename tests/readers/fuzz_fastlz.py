"""FastLZ: two bytes say how long the fragment is, the rest is its stream."""

from contextlib import suppress

from snapferry.readers.fastlz import BadFastLz, decompress

_GUARD = b"\xa5" * 8


def one_input(data: bytes) -> None:
    length = int.from_bytes(data[:2], "little") + 1
    room = bytearray(_GUARD + bytes(length) + _GUARD)
    with suppress(BadFastLz):
        decompress(data[2:], memoryview(room)[8 : 8 + length])
    assert room.startswith(_GUARD) and room.endswith(_GUARD)
