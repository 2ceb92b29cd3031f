"""Extents against a plain set of bytes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.transfer import BadExtents, Extents

SIZE = 80
runs = st.lists(
    st.tuples(st.integers(0, SIZE), st.integers(0, 30)).map(lambda run: (run[0], min(run[1], SIZE - run[0])))
)


def model(pairs: list[tuple[int, int]]) -> set[int]:
    return {byte for start, length in pairs for byte in range(start, start + length)}


def members(extents: Extents) -> set[int]:
    """The bytes of the set; also checks that it is in its one form: sorted, non-empty, no two runs touching."""
    pairs = list(extents)
    assert all(length > 0 for _, length in pairs)
    assert all(one + length < other for (one, length), (other, _) in pairwise(pairs))
    return model(pairs)


@given(runs)
def test_any_runs_become_their_bytes(pairs: list[tuple[int, int]]) -> None:
    extents = Extents.from_pairs(pairs, SIZE)
    assert members(extents) == model(pairs)
    assert extents.total_bytes == len(model(pairs))
    assert extents.end == max(model(pairs), default=-1) + 1
    assert bool(extents) == bool(model(pairs)) == (len(extents) > 0)


@given(runs, runs)
def test_sets_of_bytes_are_joined_cut_and_taken_away(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    first, second = Extents.from_pairs(one), Extents.from_pairs(other)
    assert members(first.union(second)) == model(one) | model(other)
    assert members(first.subtract(second)) == model(one) - model(other)
    assert members(first.intersect(second)) == model(one) & model(other)
    assert members(first.complement(SIZE)) == set(range(SIZE)) - model(one)
    assert (first == second) == (model(one) == model(other))
    if first == second:
        assert hash(first) == hash(second)


@given(runs, st.integers(0, 20))
def test_coalescing_fills_just_the_gaps_that_are_small_enough(pairs: list[tuple[int, int]], gap: int) -> None:
    before = Extents.from_pairs(pairs)
    after = members(before.coalesce(gap))
    gaps = before.complement(before.end)
    small = [(start, length) for start, length in gaps if length <= gap and start > 0]
    assert after == model(pairs) | model(small)


@given(runs, st.integers(1, 40))
def test_pieces_are_whole_but_for_the_last_of_a_run(pairs: list[tuple[int, int]], most: int) -> None:
    extents = Extents.from_pairs(pairs)
    starts, lengths = extents.split(most)
    pieces = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    assert model(pieces) == model(pairs) and sum(length for _, length in pieces) == extents.total_bytes
    assert pieces == sorted(pieces)
    ends = {start + length for start, length in extents}
    assert all(length == most or (length < most and start + length in ends) for start, length in pieces)


@given(runs, st.integers(1, 16))
def test_aligned_runs_are_whole_blocks_up_to_the_disks_end(pairs: list[tuple[int, int]], block: int) -> None:
    blocks = {byte // block for byte in model(pairs)}
    grown = {byte for number in blocks for byte in range(number * block, (number + 1) * block)}
    assert members(Extents.from_pairs(pairs).aligned(block)) == grown
    assert members(Extents.from_pairs(pairs).aligned(block, SIZE)) == grown & set(range(SIZE))


@pytest.mark.parametrize(
    "pair", [(-1, 5), (0, -1), (90, 20), (101, 0), (1 << 63, 1), (0, 1 << 63), ((1 << 63) - 1, 1), (0.5, 1)]
)
def test_runs_that_cant_be_on_the_disk_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(BadExtents):
        Extents.from_pairs([(0, 10), pair], 100)


def test_offsets_without_lengths_are_refused() -> None:
    with pytest.raises(BadExtents, match="2 offsets came with 1"):
        Extents.of([0, 5], [1])


def test_nothing_and_everything_are_sets_too() -> None:
    assert list(Extents.empty()) == list(Extents.whole(0)) == []
    assert list(Extents.whole(3 << 40)) == [(0, 3 << 40)]
    assert Extents.whole(10).subtract(Extents.empty()) == Extents.whole(10)


def test_extents_cant_be_changed_from_outside() -> None:
    starts = np.array([0, 100])
    extents = Extents.of(starts, [10, 10])
    starts[0] = 5
    assert list(extents) == [(0, 10), (100, 10)]
    with pytest.raises(ValueError, match="read-only"):
        extents.starts[0] = 7


@pytest.mark.slow
def test_a_million_extents_are_a_matter_of_a_second_or_two() -> None:
    places = np.random.default_rng(1).permutation(2_000_000)[:1_000_000] * 65536
    extents = Extents.of(places, np.full(1_000_000, 65536))
    assert extents.total_bytes == 1_000_000 * 65536
    rest = extents.complement(2_000_000 * 65536)
    assert rest.total_bytes == 1_000_000 * 65536
    assert extents.union(rest) == Extents.whole(2_000_000 * 65536)
