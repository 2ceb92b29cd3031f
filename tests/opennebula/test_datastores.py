"""Datastores are found by name or ID, and room is counted with what was promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.errors import Refused
from snapferry.opennebula import NoSpace, NoSuchObject, check_space, find_datastore, list_datastores
from snapferry.opennebula.datastores import mib_of
from tests.opennebula.conftest import World, make_datastore


def test_a_datastore_is_found_by_name_or_id(world: World) -> None:
    for reference in ("default", 1, "1"):
        assert find_datastore(world.client, reference).name == "default"
    assert find_datastore(world.client, "default").tm_mad == "shared"


def test_an_unknown_datastore_names_those_to_choose_from(world: World) -> None:
    with pytest.raises(NoSuchObject, match=r"'san'.*default \(1\)"):
        find_datastore(world.client, "san")


def test_a_datastore_that_takes_no_images_is_refused(world: World) -> None:
    system = next(one for one in list_datastores(world.client) if one.kind != 0)
    with pytest.raises(Refused, match="takes no images"):
        find_datastore(world.client, system.id)


def test_a_full_datastore_is_refused_with_the_figures() -> None:
    with pytest.raises(NoSpace, match="100 MiB free, 30 MiB of them promised; 71 MiB are needed, so 1 are missing"):
        check_space(make_datastore(100), [70 << 20, 1], promised_mib=30)
    assert check_space(make_datastore(100), [70 << 20], promised_mib=30) == 0
    assert check_space(make_datastore(100), 1) == 99


def test_a_datastore_that_isnt_monitored_is_refused() -> None:
    with pytest.raises(NoSpace, match="monitored"):
        check_space(make_datastore(0, total_mib=0), 1)


@given(st.integers(0, 1 << 50))
def test_sizes_are_rounded_up_to_whole_mebibytes(size: int) -> None:
    assert mib_of(size) * (1 << 20) >= size
    assert (mib_of(size) - 1) * (1 << 20) < size
