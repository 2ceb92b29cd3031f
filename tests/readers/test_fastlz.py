"""FastLZ streams expand to what they stand for; others end in an error, soon and without a byte too many."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.lab.host.fastlz import compress
from snapferry.readers.fastlz import BadFastLz, decompress, longest

from .fuzz_fastlz import one_input

TEXT = b"Snapferry moves running machines; machines run on. " + bytes(300) + b"machines run on. " * 3
FAR = bytes(range(60, 90)) + bytes(9000) + bytes(range(60, 90)) + bytes(20)
CORPUS = Path(__file__).parent / "corpus" / "fastlz"
MADE_BY_FASTLZ = [
    (TEXT, CORPUS / "text-1"),
    (TEXT, CORPUS / "text-2"),
    (FAR, CORPUS / "far-1"),
    (FAR, CORPUS / "far-2"),  # its far match lies 9,030 bytes back
]
"""What FastLZ 0.5 itself, in C, made of these bytes with each of its levels; two bytes of the fuzzer's go before."""


def expand(stream: bytes, length: int) -> bytes:
    target = bytearray(length)
    decompress(stream, memoryview(target))
    return bytes(target)


@pytest.mark.parametrize(("data", "path"), MADE_BY_FASTLZ)
def test_streams_of_the_original_expand(data: bytes, path: Path) -> None:
    assert expand(path.read_bytes()[2:], len(data)) == data


@pytest.mark.parametrize(("data", "path"), MADE_BY_FASTLZ)
def test_a_stream_that_is_cut_or_of_another_length_is_refused(data: bytes, path: Path) -> None:
    stream = path.read_bytes()[2:]
    for end in range(len(stream)):
        with pytest.raises(BadFastLz):
            expand(stream[:end], len(data))
    for length in (0, 1, len(data) - 1, len(data) + 1):
        with pytest.raises(BadFastLz):
            expand(stream, length)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x40a", id="level 3"),
        pytest.param(b"\x02ab", id="a run behind the end"),
        pytest.param(b"\x00a\x20\x01", id="a match before the begin"),
        pytest.param(b"\x00a\xe0\xff\x00", id="a match longer than there is room"),
        pytest.param(b"\x20a\xe0" + b"\xff" * 60_000, id="a length without an end"),
    ],
)
def test_a_damaged_stream_is_refused(stream: bytes) -> None:
    target = bytearray(b"x" * 100)
    with pytest.raises(BadFastLz):
        decompress(stream, memoryview(target))
    assert target == b"x" * 100


@given(
    seed=st.integers(0, 1 << 32),
    kinds=st.lists(st.sampled_from(["noise", "byte", "again"]), min_size=1, max_size=60),
    zeros=st.sampled_from([0, 0, 9_000, 70_000]),
)
def test_what_the_lab_compresses_expands_again(seed: int, kinds: list[str], zeros: int) -> None:
    rng, data = random.Random(seed), bytearray()
    for kind in kinds:
        if kind == "noise" or not data:
            data += rng.randbytes(rng.randint(1, 100))
        elif kind == "byte":
            data += rng.randbytes(1) * rng.randint(1, 900)
        else:
            data += data[rng.randrange(len(data)) :][: rng.randint(1, 600)]
    data[len(data) // 2 : len(data) // 2] = bytes(zeros)
    stream = compress(bytes(data))
    assert len(stream) <= longest(len(data))
    assert expand(stream, len(data)) == data


@given(st.binary(max_size=400))
def test_any_bytes_expand_or_are_refused(data: bytes) -> None:
    one_input(data)
