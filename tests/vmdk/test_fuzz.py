"""Damaged files end in an error that is named, soon; `make fuzz` looks much longer."""

import importlib
import random
from collections.abc import Callable

import pytest

from .fuzzing import CORPUS, PARSERS, mutations


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def one_input(parser: str) -> Callable[[bytes], None]:
    target: Callable[[bytes], None] = importlib.import_module(f".fuzz_{parser}", __package__).one_input
    return target


@pytest.fixture
def seeds(parser: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / parser).iterdir())]


def test_the_corpus_is_small_and_ends_well(one_input: Callable[[bytes], None], seeds: list[bytes]) -> None:
    assert len(seeds) >= 4
    for data in seeds:
        assert len(data) < 64 << 10
        one_input(data)


@pytest.mark.slow
def test_damaged_files_end_in_errors_that_are_named(one_input: Callable[[bytes], None], seeds: list[bytes]) -> None:
    for data in mutations(seeds, 300, random.Random(1)):
        one_input(data)
