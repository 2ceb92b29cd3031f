"""FastLZ, as hosts compress a fragment of NFC: an LZ77 of whole bytes, without header, checksum or entropy coding.

The format is FastLZ 0.5's, levels 1 and 2. PyPI has bindings of its C code, but none that is kept up. Here each run and
each match is one step of Python.
"""

from typing import Final

_MATCH: Final = 32  # a smaller control byte is a run of literals, shorter than the run by one
_LONGER: Final = 7  # the length code of a match whose length goes on in the next byte
_FAR: Final = 0x1FFF  # the distance behind which level 2 has 16 more bits of it
_LEVELS: Final = 2


class BadFastLz(Exception):
    """These bytes aren't a FastLZ stream of that length."""


def longest(length: int) -> int:
    """How long a stream of so many bytes may be: what the format's makers want a compressor to have room for."""
    return max(66, length + length // 16)


def decompress(stream: bytes, target: memoryview) -> None:
    """Fills `target`, in time and memory that its length and the stream's bound.

    Raises:
        BadFastLz: the stream is damaged, or doesn't have exactly so many bytes.
    """
    try:
        data = _expand(stream, len(target))
    except IndexError:
        raise BadFastLz("it ends in the middle of a step") from None
    if len(data) != len(target):
        raise BadFastLz(f"it has {len(data)} bytes, not {len(target)}")
    target[:] = data


def _expand(stream: bytes, room: int) -> bytearray:
    """What the stream stands for, at most `room` bytes. Raises IndexError where it is too short."""
    level = (stream[0] >> 5) + 1
    if level > _LEVELS:
        raise BadFastLz(f"it has level {level}")
    data = bytearray()
    control, at, end, filled = stream[0] & 31, 1, len(stream), 0
    while True:
        if control < _MATCH:
            after = at + control + 1
            filled += control + 1
            if after > end or filled > room:
                raise BadFastLz("a run goes over its end")
            data += stream[at:after]
            at = after
        else:
            length, distance = control >> 5, (control & 31) << 8
            if length == _LONGER:
                length += stream[at]
                at += 1
                while level == 2 and stream[at - 1] == 255:
                    length += stream[at]
                    at += 1
            distance += stream[at]
            at += 1
            if level == 2 and distance == _FAR:
                distance += (stream[at] << 8) + stream[at + 1]
                at += 2
            start, length = filled - distance - 1, length + 2
            filled += length
            if start < 0 or filled > room:
                raise BadFastLz("a match reaches over an end")
            if length <= distance + 1:
                data += data[start : start + length]
            else:
                data += (data[start:] * (length // (distance + 1) + 1))[:length]
        if at == end:
            return data
        control = stream[at]
        at += 1
