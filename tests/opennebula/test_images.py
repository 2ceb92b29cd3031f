"""Images: made once, disabled before anything writes, recognised, removed."""

import threading
import time
from typing import Any

import pytest

from snapferry.errors import Stopped
from snapferry.opennebula import (
    BadName,
    ImageFailed,
    NameTaken,
    NoSpace,
    NoSuchObject,
    NotRepresentable,
    Unreachable,
    WrongState,
    create_image,
    create_template,
    delete_image,
    disable_image,
    enable_image,
    instantiate,
    list_images,
    read_image,
    rename_image,
    update_image,
)
from snapferry.opennebula.models import Image, ImageState
from tests.opennebula.conftest import World

MINE = {"SNAPFERRY": {"ID": "m1", "DISK_UUID": "6000C29a", "OWN_ID": ""}, "SNAPFERRY_BASE": {"STATE": "empty"}}


def _create(world: World, name: str = "web01-disk-0", **fields: Any) -> Image:
    values: dict[str, Any] = {
        "size_bytes": (8 << 20) + 512, "datastore_id": 1, "image_type": "OS", "dev_prefix": "vd", "attributes": MINE,
    }  # fmt: skip
    return create_image(world.client, name=name, **(values | fields))


def test_a_new_image_is_empty_raw_persistent_disabled_and_whole_mebibytes(world: World) -> None:
    image = _create(world)
    assert image.state == ImageState.DISABLED
    assert (image.format, image.persistent, image.size_mib, image.type) == ("raw", True, 9, 0)
    assert image.source.startswith(str(world.frontend.state()["images"][0]["source"])[:5])
    assert image.attributes["SNAPFERRY"] == {"ID": "m1", "DISK_UUID": "6000C29a"}
    assert image.attributes["DEV_PREFIX"] == "vd"
    assert _create(world, "web01-disk-1", image_type="DATABLOCK", attributes={}).type == 2


def test_the_image_of_a_killed_run_is_recognised_and_not_made_twice(world: World) -> None:
    world.frontend.set_fault("drop_answer", method="image.allocate")
    with pytest.raises(Unreachable):
        _create(world)
    assert [one.name for one in list_images(world.client)] == ["web01-disk-0"]
    image = _create(world)
    assert image.state == ImageState.DISABLED
    assert len(list_images(world.client)) == 1


def test_an_image_that_knows_its_own_id_is_not_taken_for_a_fresh_one(world: World) -> None:
    first = _create(world)
    update_image(world.client, first.id, {"SNAPFERRY": {**MINE["SNAPFERRY"], "OWN_ID": str(first.id)}})
    with pytest.raises(NameTaken) as caught:
        _create(world)
    assert caught.value.object_id == first.id


def test_an_image_of_the_same_name_that_isnt_ours_is_left_alone(world: World) -> None:
    _create(world, attributes={"SNAPFERRY": {"ID": "other"}})
    before = world.frontend.state()
    with pytest.raises(NameTaken, match="already taken"):
        _create(world)
    assert world.frontend.state() == before


def test_an_image_that_stays_locked_without_a_file_is_named_and_removed(world: World) -> None:
    world.frontend.set_fault("image_stuck", message="killed")
    with pytest.raises(ImageFailed, match="LOCKED without a file"):
        _create(world, timeout_seconds=0.2, attributes={})
    assert list_images(world.client) == []


def test_a_stuck_image_of_a_killed_run_is_replaced(world: World) -> None:
    world.frontend.set_fault("image_stuck", message="killed")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Stopped):
        _create(world, stop=stop)
    stuck = list_images(world.client)[0]
    assert stuck.state == ImageState.LOCKED
    image = _create(world, timeout_seconds=0.5)
    assert image.id != stuck.id
    assert [one.id for one in list_images(world.client)] == [image.id]


def test_a_driver_that_fails_is_quoted_and_nothing_is_left(world: World) -> None:
    world.frontend.set_fault("image_error", message="mkfs: no such device")
    with pytest.raises(ImageFailed, match="mkfs: no such device"):
        _create(world)
    assert list_images(world.client) == []


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": "a/b"}, BadName),
        ({"attributes": {"SNAPFERRY": {"ID": "]]>"}}}, NotRepresentable),
        ({"datastore_id": 999}, NoSuchObject),
        ({"size_bytes": 1 << 60}, NoSpace),
    ],
)
def test_what_is_refused_leaves_nothing(world: World, fields: dict[str, Any], error: type[Exception]) -> None:
    before = world.frontend.state()
    with pytest.raises(error):
        _create(world, **fields)
    assert world.frontend.state() == before


def test_a_wait_for_an_image_ends_within_a_second_when_told_to(world: World) -> None:
    world.frontend.set_fault("image_stuck", message="killed")
    stop = threading.Event()
    stop.set()
    began = time.monotonic()
    with pytest.raises(Stopped):
        _create(world, stop=stop)
    assert time.monotonic() - began < 1


def test_disabling_and_enabling_can_be_repeated(world: World) -> None:
    image = _create(world)
    assert disable_image(world.client, image.id).state == ImageState.DISABLED
    for _ in range(2):
        assert enable_image(world.client, image.id).state == ImageState.READY
    for _ in range(2):
        assert disable_image(world.client, image.id).state == ImageState.DISABLED


def test_an_image_in_use_can_be_neither_disabled_nor_deleted(world: World) -> None:
    image = _create(world)
    enable_image(world.client, image.id)
    template = create_template(world.client, "web01", _small_vm(image.id))
    machine = instantiate(world.client, template.id, "web01", hold=True, extra={})
    with pytest.raises(WrongState, match=f"machine {machine} uses it"):
        disable_image(world.client, image.id)
    with pytest.raises(WrongState, match="VMs using it"):
        delete_image(world.client, image.id)


def test_a_disabled_image_keeps_machines_from_being_made(world: World) -> None:
    image = _create(world)
    template = create_template(world.client, "web01", _small_vm(image.id))
    with pytest.raises(WrongState, match="DISABLED"):
        instantiate(world.client, template.id, "web01", hold=True, extra={})


def test_an_update_leaves_the_other_attributes_and_removes_empty_ones(world: World) -> None:
    image = _create(world)
    odd = 'quote" <x> & ]] \\ = , [v]\nžluť'
    update_image(world.client, image.id, {"SNAPFERRY_BASE": {"STATE": "warm", "NOTE": odd}, "PLAIN": odd})
    found = read_image(world.client, image.id).attributes
    assert found["SNAPFERRY_BASE"] == {"STATE": "warm", "NOTE": odd}
    assert found["PLAIN"] == odd
    assert found["SNAPFERRY"] == {"ID": "m1", "DISK_UUID": "6000C29a"}
    update_image(world.client, image.id, {"SNAPFERRY_BASE": {}, "PLAIN": "", "SNAPFERRY": {"ID": "m2"}})
    found = read_image(world.client, image.id).attributes
    assert "SNAPFERRY_BASE" not in found
    assert not found.get("PLAIN")
    assert found["SNAPFERRY"] == {"ID": "m2"}


def test_deleting_can_be_repeated_and_ends_when_the_image_is_gone(world: World) -> None:
    image = _create(world)
    delete_image(world.client, image.id)
    with pytest.raises(NoSuchObject):
        read_image(world.client, image.id)
    delete_image(world.client, image.id)
    assert world.frontend.state()["files"]["1"] == {} or not world.frontend.state()["files"]["1"]


def test_a_cut_answer_to_a_delete_leaves_it_repeatable(world: World) -> None:
    image = _create(world)
    world.frontend.set_fault("drop_answer", method="image.delete")
    with pytest.raises(Unreachable):
        delete_image(world.client, image.id)
    delete_image(world.client, image.id)
    assert list_images(world.client) == []


def test_a_frontend_that_is_away_for_a_moment_doesnt_end_a_wait(world: World) -> None:
    world.frontend.set_fault("drop", method="image.info", times=2)
    assert _create(world).state == ImageState.DISABLED


def test_renaming_can_be_repeated(world: World) -> None:
    image = _create(world)
    for _ in range(2):
        rename_image(world.client, image.id, "other")
    assert read_image(world.client, image.id).name == "other"


def _small_vm(image_id: int) -> dict[str, Any]:
    return {"CPU": "1", "MEMORY": "64", "DISK": [{"IMAGE_ID": str(image_id)}]}
