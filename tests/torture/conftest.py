"""Both ends opened as the engine's tests open them; and what the long runs hit, told at the end."""

from collections.abc import Callable

import pytest

from ..engine.conftest import ends

__all__ = ["ends"]

Summary = Callable[[str, str, str], None]
"""Notes one occasion: of what, its group, and the point that was hit."""


@pytest.fixture
def summary(record_property: Callable[[str, object], None]) -> Summary:
    """Notes what a run hit; `tests/conftest.py` counts all of it at the end, also that of pytest-xdist's processes."""
    return lambda what, group, point: record_property(f"hit {what}", (group, point))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The many short tests go last, so that no process is left alone with a long one at the end."""
    items.sort(key=lambda one: one.path.name == "test_faults.py")
