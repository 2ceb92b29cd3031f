"""FastLZ as hosts compress a fragment: level 2 from 64 KiB on, level 1 below, as the library chooses by itself."""

_LEVEL_2_BYTES = 64 << 10
_LONGEST_RUN = 32
_LEAST_MATCH = 3
_LONGEST_MATCH = 264  # of level 1; level 2 knows no end
_NEAR = 8191  # distances below it take 13 bits; level 2 counts 16 more bits from there
_TAIL = 4  # the library's decompressor refuses a match at the very end
_STEP = 256
_PATIENCE = 32  # the longer nothing has matched, the fewer places are tried: noise costs little


def compress(data: bytes) -> bytes:
    """Compresses greedily; what doesn't compress becomes longer."""
    level_2 = len(data) >= _LEVEL_2_BYTES
    farthest = _NEAR + 0xFFFF if level_2 else _NEAR
    longest = len(data) if level_2 else _LONGEST_MATCH
    seen: dict[bytes, int] = {}
    out = bytearray()
    at = literals = 0
    while at <= len(data) - _LEAST_MATCH - _TAIL:
        key = data[at : at + _LEAST_MATCH]
        before = seen.get(key, -1)
        seen[key] = at
        if before < 0 or at - before - 1 > farthest:
            at += 1 + (at - literals) // _PATIENCE
            continue
        length = _match_length(data, before, at, longest)
        _put_literals(out, data[literals:at])
        _put_match(out, length, at - before - 1, level_2=level_2)
        at += length
        literals = at
    _put_literals(out, data[literals:])
    out[0] |= level_2 << 5  # a stream begins with literals, and their control byte has room for the level
    return bytes(out)


def _match_length(data: bytes, before: int, at: int, longest: int) -> int:
    most = min(longest, len(data) - _TAIL - at)
    length = _LEAST_MATCH
    while length + _STEP <= most and _same(data, before + length, at + length):
        length += _STEP
    while length < most and data[before + length] == data[at + length]:
        length += 1
    return length


def _same(data: bytes, one: int, other: int) -> bool:
    return data[one : one + _STEP] == data[other : other + _STEP]


def _put_literals(out: bytearray, data: bytes) -> None:
    for start in range(0, len(data), _LONGEST_RUN):
        run = data[start : start + _LONGEST_RUN]
        out.append(len(run) - 1)
        out += run


def _put_match(out: bytearray, length: int, distance: int, *, level_2: bool) -> None:
    """`distance` is less by one than how far back the match lies."""
    near = min(distance, _NEAR)
    code = length - 2
    out.append(min(code, 7) << 5 | near >> 8)
    if code >= 7:
        rest = code - 7
        while level_2 and rest >= 255:
            out.append(255)
            rest -= 255
        out.append(rest)
    out.append(near & 0xFF)
    if level_2 and distance >= _NEAR:
        out += (distance - _NEAR).to_bytes(2, "big")
