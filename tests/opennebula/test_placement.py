"""Nothing is written before path and image are proven to be the same."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.errors import Refused
from snapferry.opennebula import (
    StorageNotReached,
    WrongFile,
    check_placement,
    create_image,
    delete_image,
    find_datastore,
    image_path,
    update_image,
)
from snapferry.opennebula.models import Datastore, Image
from tests.opennebula.conftest import World, make_datastore

SIZE = (4 << 20) + 512


@pytest.fixture
def image(world: World) -> Image:
    return create_image(
        world.client, name="web01-disk-0", size_bytes=SIZE, datastore_id=1, image_type="OS", dev_prefix="vd",
        attributes={},
    )  # fmt: skip


@pytest.fixture
def datastore(world: World) -> Datastore:
    return find_datastore(world.client, 1)


def test_the_images_own_file_is_found_behind_the_double_slash(world: World, image: Image, datastore: Datastore) -> None:
    assert "//" in datastore.base_path
    path = image_path(world.client, image, datastore)
    assert "//" not in str(path)
    assert path.stat().st_size == 5 << 20
    os.truncate(path, SIZE)
    assert image_path(world.client, image, datastore) == path


def test_a_datastore_with_tm_local_works_the_same(world: World) -> None:
    datastore = find_datastore(world.client, "local")
    image = create_image(
        world.client,
        name="x",
        size_bytes=SIZE,
        datastore_id=datastore.id,
        image_type="OS",
        dev_prefix="vd",
        attributes={},
    )
    assert image_path(world.client, image, datastore).is_file()


def _link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


def _hard_link(path: Path) -> None:
    os.link(path, path.with_name("other"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _longer(path: Path) -> None:
    os.truncate(path, (5 << 20) + 1)


def _shorter(path: Path) -> None:
    os.truncate(path, 4 << 20)


@pytest.mark.parametrize("spoil", [_link, _hard_link, _folder, _pipe, _longer, _shorter])
def test_anything_but_the_file_as_opennebula_made_it_is_refused(
    world: World, image: Image, datastore: Datastore, spoil: Callable[[Path], None]
) -> None:
    path = image_path(world.client, image, datastore)
    spoil(path)
    with pytest.raises(WrongFile, match=str(path)):
        image_path(world.client, image, datastore)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()


def test_a_worker_without_the_file_is_told_what_to_mount(world: World, image: Image, datastore: Datastore) -> None:
    path = image_path(world.client, image, datastore)
    path.unlink()
    with pytest.raises(StorageNotReached, match=f"mount.*{path.parent.name}|Run the worker where"):
        image_path(world.client, image, datastore)


def test_a_worker_without_the_folder_is_told_what_to_mount() -> None:
    with pytest.raises(StorageNotReached, match=r"/nowhere/at/all.*mount"):
        check_placement(make_datastore(base="/nowhere//at/all"))


@pytest.mark.parametrize("fields", [{"ds_mad": "ceph"}, {"tm_mad": "qcow2"}, {"tm_mad": "ssh"}, {"base_path": ""}])
def test_drivers_that_keep_images_elsewhere_are_refused(fields: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="DS_MAD fs and TM_MAD shared or local"):
        check_placement(make_datastore(base=tmp_path).model_copy(update=fields))


@pytest.mark.parametrize("source", ["/etc/passwd", "{base}/../x", "{base}/a/b", "{base}/", "{base}", "{base}x/y", ""])
def test_a_path_that_isnt_right_below_the_datastore_is_refused(
    world: World, image: Image, datastore: Datastore, source: str
) -> None:
    told = _registered(world, source.format(base=datastore.base_path)) if source else image
    if not source:
        told = image.model_copy(update={"source": ""})
    with pytest.raises(WrongFile):
        image_path(world.client, told, datastore)


def _registered(world: World, source: str) -> Image:
    """An image that an administrator registered on an existing path: OpenNebula checks nothing."""
    from snapferry.opennebula import read_image

    text = f'NAME="reg"\nTYPE=OS\nSOURCE="{source}"\nFORMAT=raw\nSIZE=5\nPERSISTENT=YES\n'
    return read_image(world.client, int(world.client.call("image.allocate", text, 1)))


def test_an_old_reading_of_an_image_leads_nowhere(world: World, image: Image, datastore: Datastore) -> None:
    stale = image.model_copy(update={"source": f"{datastore.base_path}/{'0' * 32}"})
    with pytest.raises(WrongFile, match="replaced or moved"):
        image_path(world.client, stale, datastore)
    update_image(world.client, image.id, {"NOTE": "x"})
    assert image_path(world.client, image, datastore)
    delete_image(world.client, image.id)
    with pytest.raises(Exception, match="image"):
        image_path(world.client, image, datastore)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_worker_that_may_not_write_is_told_whom_to_be(world: World, image: Image, datastore: Datastore) -> None:
    path = image_path(world.client, image, datastore)
    for folder in (path, *path.parents):
        if folder.stat().st_uid == 0 and "pytest" in str(folder):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.chown(path, 12345, 12345)
    os.seteuid(54321)
    try:
        with pytest.raises(StorageNotReached, match=r"54321.*oneadmin"):
            image_path(world.client, image, datastore)
    finally:
        os.seteuid(0)
    path.chmod(0o666)
    os.seteuid(54321)
    try:
        with pytest.raises(StorageNotReached, match="belongs to user 12345"):
            image_path(world.client, image, datastore)
    finally:
        os.seteuid(0)
