"""Images: made, guarded, locked, changed, removed, with the real frontend's texts."""

import re
import stat
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyone
import pytest

LOCKED = r"User \[0\] : IMAGE is locked. \[0\].$"


def test_an_empty_image_is_locked_then_ready_with_a_sparse_file_of_its_size(slow_site: Any) -> None:
    site, one = slow_site, slow_site.client()
    number = one.image.allocate("NAME=d\nTYPE=OS\nFORMAT=raw\nSIZE=64\nPERSISTENT=YES\n", site.LOCAL)
    born = one.image.info(number)
    assert (born.STATE, born.PREV_STATE, born.SOURCE) == (4, 0, "")
    site.until(lambda: one.image.info(number).STATE == 1)
    image = one.image.info(number)
    assert re.fullmatch(re.escape(f"{site.folder}//datastores/1/") + "[0-9a-f]{32}", image.SOURCE)
    file = Path(image.SOURCE).stat()
    assert (file.st_size, file.st_blocks, stat.S_IMODE(file.st_mode)) == (64 << 20, 0, 0o644)


def test_the_same_seed_names_the_same_files(open_site: Any) -> None:
    sites = [open_site(seed=seed) for seed in (5, 5, 6)]
    names = [Path(s.client().image.info(s.image(s.client())).SOURCE).name for s in sites]
    assert names[0] == names[1] != names[2]


def test_an_image_has_the_elements_of_a_real_one_in_their_order(site: Any, one: Any) -> None:
    one.image.lock(site.image(one), 3)
    assert site.elements("image.info", 0) == [
        "ID", "UID", "GID", "UNAME", "GNAME", "NAME", "LOCK", "PERMISSIONS", "TYPE", "DISK_TYPE", "PERSISTENT",
        "REGTIME", "MODTIME", "SOURCE", "PATH", "FORMAT", "FS", "SIZE", "STATE", "PREV_STATE", "RUNNING_VMS",
        "CLONING_OPS", "CLONING_ID", "TARGET_SNAPSHOT", "DATASTORE_ID", "DATASTORE", "VMS", "CLONES",
        "APP_CLONES", "TEMPLATE", "SNAPSHOTS", "BACKUP_INCREMENTS", "BACKUP_DISK_IDS",
    ]  # fmt: skip


@pytest.mark.parametrize("size", ["SIZE=64.7", "SIZE=1G", "SIZE=abc", ""])
def test_a_size_that_is_no_whole_number_of_mib_is_refused(one: Any, size: str) -> None:
    text = r"^\[one.image.allocate\] Cannot parse image SIZE: Wrong number or missing SIZE attribute.$"
    with pytest.raises(pyone.OneInternalException, match=text):
        one.image.allocate(f"NAME=x\nTYPE=OS\nFORMAT=raw\n{size}\n", 1)


def test_a_size_of_zero_is_taken_and_ends_in_error(site: Any, one: Any) -> None:
    number = one.image.allocate("NAME=zero\nTYPE=OS\nSIZE=0\n", site.LOCAL)
    site.until(lambda: one.image.info(number).STATE == 5)
    assert "ERROR" in one.image.info(number).TEMPLATE


def test_what_is_too_large_is_refused_unless_the_check_is_skipped(site: Any, one: Any) -> None:
    with pytest.raises(pyone.OneActionException, match=r"^\[one.image.allocate\] Not enough space in datastore$"):
        one.image.allocate("NAME=big\nTYPE=OS\nSIZE=99999999\n", site.LOCAL)
    number = one.image.allocate("NAME=big\nTYPE=OS\nSIZE=9999999\n", site.LOCAL, True)
    site.until(lambda: one.image.info(number).STATE in (1, 5))


def test_free_space_is_measured_and_not_reserved(site: Any, one: Any) -> None:
    free = one.datastore.info(site.LOCAL).FREE_MB
    for name in ("a", "b"):
        site.image(one, name, size=free - 1)
    assert free == one.datastore.info(site.LOCAL).FREE_MB
    with Path(one.image.info(0).SOURCE).open("r+b") as file:
        file.write(b"x" * (3 << 20))
    assert free - 3 >= one.datastore.info(site.LOCAL).FREE_MB


@pytest.mark.parametrize(
    ("text", "datastore", "kind", "message"),
    [
        ("NAME=x\nTYPE=OS\nSIZE=1\n", 999, pyone.OneNoExistsException, "Error getting datastore [999]."),
        ("TYPE=OS\nSIZE=1\n", 1, pyone.OneException, "Error allocating a new image. Invalid NAME, it cannot be empty"),
        (
            "NAME=x\nTYPE=OS\nSIZE=1\n", 101, pyone.OneException,
            "Error allocating a new image. New images can only be allocated in a files or image datastore.",
        ),
        (
            "NAME=x\nTYPE=OS\nSIZE=1\nSOURCE=/a\n", 1, pyone.OneException,
            "Error allocating a new image. SOURCE needs FORMAT to be set.",
        ),
    ],
)  # fmt: skip
def test_a_refused_allocation_leaves_nothing(
    site: Any, one: Any, text: str, datastore: int, kind: type[Exception], message: str
) -> None:
    before = site.frontend.state()
    with pytest.raises(kind) as raised:
        one.image.allocate(text, datastore)
    assert str(raised.value) == f"[one.image.allocate] {message}"
    assert type(raised.value) is kind
    assert site.frontend.state() == before


def test_a_name_is_unique_per_owner(site: Any, one: Any) -> None:
    user = site.plain_user()
    site.image(one, "d")
    with pytest.raises(pyone.OneException, match=r"Error allocating a new image. NAME is already taken by IMAGE 0.$"):
        one.image.allocate("NAME=d\nTYPE=OS\nSIZE=1\n", site.LOCAL)
    assert user.image.allocate("NAME=d\nTYPE=OS\nSIZE=1\n", site.LOCAL) == 1
    site.image(one, "e")
    text = "image cannot be renamed to d because it collides with image 0"
    with pytest.raises(pyone.OneActionException, match=text):
        one.image.rename(2, "d")
    one.image.rename(2, "f")
    assert one.image.info(2).NAME == "f"


def test_an_update_merges_by_name_or_replaces_all(site: Any, one: Any) -> None:
    number = site.image(one, more='KEY="k"\nSTATE_A=[A="1",B="2"]\n')
    one.image.update(number, 'STATE_A=[A="3"]\nNEW="n"\n', 1)
    assert one.image.info(number).TEMPLATE == {"DEV_PREFIX": "sd", "KEY": "k", "NEW": "n", "STATE_A": {"A": "3"}}
    one.image.update(number, 'STATE_A=[ ]\nNEW=""\n', 1)
    assert one.image.info(number).TEMPLATE == {"DEV_PREFIX": "sd", "KEY": "k", "NEW": None}
    one.image.update(number, {"TEMPLATE": {"MIG": {"A": "x]y", "B": 'quote" <&>'}}}, 1)
    assert one.image.info(number).TEMPLATE["MIG"] == {"A": "x]y", "B": 'quote" <&>'}
    one.image.update(number, 'ONLY="this"\n', 0)
    assert one.image.info(number).TEMPLATE == {"DEV_PREFIX": "sd", "ONLY": "this"}
    with pytest.raises(pyone.OneApiException, match="Wrong update type"):
        one.image.update(number, "A=1", 7)
    text = r"Cannot update template. Parse error: XML Template malformed.$"
    with pytest.raises(pyone.OneInternalException, match=text):
        one.image.update(number, {"TEMPLATE": {"X": {"V": "a]]>b"}}}, 1)


def test_a_disabled_image_can_be_changed_but_not_started(site: Any, one: Any) -> None:
    number = site.image(one)
    one.image.enable(number, False)
    one.image.enable(number, False)
    assert one.image.info(number).STATE == 3
    one.image.update(number, "A=1", 1)
    one.image.chtype(number, "DATABLOCK")
    one.image.persistent(number, False)
    assert (one.image.info(number).TYPE, one.image.info(number).PERSISTENT) == (2, 0)
    text = r"DISK 0: Cannot acquire image 0, it is in state: DISABLED$"
    with pytest.raises(pyone.OneInternalException, match=text):
        site.machine(one, (number,))
    one.image.enable(number, True)
    assert one.image.info(number).STATE == 1


def test_types_change_back_and_forth_but_not_to_a_file(site: Any, one: Any) -> None:
    number = site.image(one)
    one.image.chtype(number, "DATABLOCK")
    one.image.chtype(number, "OS")
    with pytest.raises(pyone.OneActionException, match="incompatible type for the current datastore"):
        one.image.chtype(number, "KERNEL")
    with pytest.raises(pyone.OneInternalException, match="known type "):
        one.image.chtype(number, "FOO")


def test_a_lock_with_test_is_taken_by_one_of_many(site: Any, one: Any) -> None:
    number = site.image(one)
    won: list[int] = []
    lost: list[str] = []

    def take() -> None:
        try:
            won.append(site.client().image.lock(number, 3, True))
        except pyone.OneActionException as error:
            lost.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lock = one.image.info(number).LOCK
    assert (len(won), set(lost)) == (1, {f"[one.image.lock] {lock.TIME}"})
    assert (lock.LOCKED, lock.OWNER) == (3, 0)
    assert abs(lock.TIME - time.time()) < 60
    assert one.image.lock(number, 2) == number, "without the test an administrator locks again, silently"
    one.image.unlock(number)
    assert one.image.info(number).LOCK is None
    assert one.image.unlock(number) == number


@pytest.mark.parametrize(
    ("level", "update", "use"), [(1, False, False), (2, False, True), (3, True, True)], ids=["use", "manage", "admin"]
)
def test_each_lock_level_stops_what_it_says_and_the_administrator_too(
    site: Any, one: Any, level: int, update: bool, use: bool
) -> None:
    number = site.image(one)
    one.image.lock(number, level)
    assert one.image.info(number).NAME == "disk"
    with nullcontext() if update else pytest.raises(pyone.OneAuthorizationException, match=LOCKED):
        one.image.update(number, "A=1", 1)
    with nullcontext() if use else pytest.raises(pyone.OneAuthorizationException, match=LOCKED):
        site.machine(one, (number,))


def test_a_used_image_is_guarded(site: Any, one: Any) -> None:
    number = site.image(one)
    site.machine(one, (number,))
    image = one.image.info(number)
    assert (image.STATE, image.RUNNING_VMS, image.VMS.ID) == (8, 1, [0])
    for force in (False, True):
        with pytest.raises(pyone.OneActionException, match=r"Cannot delete image. There are 1 VMs using it.$"):
            one.image.delete(number, force)
    with pytest.raises(pyone.OneInternalException, match=r"Could not disable image: Image cannot be in state USED.$"):
        one.image.enable(number, False)
    with pytest.raises(
        pyone.OneInternalException, match="Could not make image non-persistent: Image cannot be in state USED"
    ):
        one.image.persistent(number, False)


def test_a_deleted_image_goes_with_its_file(site: Any, one: Any) -> None:
    number = site.image(one)
    source = Path(one.image.info(number).SOURCE)
    one.image.delete(number)
    site.until(lambda: gone(one, number))
    assert not source.exists()
    assert site.image(one, "next") == number + 1, "an ID is never given again"


def gone(one: Any, number: int) -> bool:
    try:
        one.image.info(number)
    except pyone.OneNoExistsException as error:
        assert str(error) == f"[one.image.info] Error getting image [{number}]."
        return True
    return False


def test_a_missing_file_leaves_the_image_in_error_until_it_is_forced(site: Any, one: Any) -> None:
    number = site.image(one)
    Path(one.image.info(number).SOURCE).unlink()
    one.image.delete(number)
    site.until(lambda: one.image.info(number).STATE == 5)
    assert "Error removing image from datastore" in one.image.info(number).TEMPLATE["ERROR"]
    one.image.delete(number, True)
    site.until(lambda: gone(one, number))


def test_an_image_stuck_in_locked_is_removed_by_force_only(site: Any, one: Any) -> None:
    site.frontend.set_fault("image_stuck")
    number = one.image.allocate("NAME=s\nTYPE=OS\nSIZE=1\n", site.LOCAL)
    site.image(one, "other")
    assert (one.image.info(number).STATE, one.image.info(number).SOURCE) == (4, "")
    text = "Image locked, use --force flag to remove the image. Force delete may leave some files on Datastore"
    with pytest.raises(pyone.OneInternalException, match=text):
        one.image.delete(number)
    one.image.delete(number, True)
    site.until(lambda: gone(one, number))


def test_a_driver_failure_is_told_in_the_image(site: Any, one: Any) -> None:
    site.frontend.set_fault("image_error", message="disk on fire")
    number = one.image.allocate("NAME=s\nTYPE=OS\nSIZE=1\n", site.LOCAL)
    site.until(lambda: one.image.info(number).STATE == 5)
    assert one.image.info(number).TEMPLATE["ERROR"].endswith("disk on fire")


@pytest.mark.slow
def test_a_clone_copies_content_and_attributes(slow_site: Any) -> None:
    site, one = slow_site, slow_site.client()
    origin = site.image(one, more='KEY="k"\n')
    Path(one.image.info(origin).SOURCE).write_bytes(b"hello".ljust(4 << 20, b"\0"))
    copy = one.image.clone(origin, "copy", -1)
    assert one.image.info(origin).STATE == 6
    site.until(lambda: one.image.info(copy).STATE == 1 and one.image.info(origin).STATE == 1)
    assert one.image.info(copy).TEMPLATE["KEY"] == "k"
    assert Path(one.image.info(copy).SOURCE).read_bytes()[:5] == b"hello"


def test_a_registered_volume_is_ready_at_once_and_for_administrators_only(site: Any, one: Any) -> None:
    user = site.plain_user()
    text = f"NAME=r\nTYPE=OS\nSOURCE={site.folder}//datastores/1/there\nFORMAT=raw\nSIZE=10\n"
    with pytest.raises(
        pyone.OneAuthorizationException, match=r"User \[1\] : Template includes a restricted attribute SOURCE.$"
    ):
        user.image.allocate(text, site.LOCAL)
    assert one.image.info(one.image.allocate(text, site.LOCAL)).STATE == 1


def test_a_plain_user_sees_and_touches_only_what_is_opened_to_him(site: Any, one: Any) -> None:
    user = site.plain_user()
    number = site.image(one)
    with pytest.raises(
        pyone.OneAuthorizationException, match=r"User \[1\] : Not authorized to perform USE IMAGE \[0\].$"
    ):
        user.image.info(number)
    assert user.imagepool.info(-2, -1, -1).IMAGE == []
    one.image.chmod(number, -1, -1, -1, -1, -1, -1, 1, -1, -1)
    assert [it.ID for it in user.imagepool.info(-2, -1, -1).IMAGE] == [number]
    with pytest.raises(pyone.OneAuthorizationException, match=r"Not authorized to perform MANAGE IMAGE \[0\].$"):
        user.image.chtype(number, "OS")
    assert user.datastore.info(site.LOCAL).NAME == "default"
    own = site.image(user, "own")
    assert [it.ID for it in one.imagepool.info(-2, -1, -1).IMAGE] == [own, number]
    assert [it.ID for it in one.imagepool.info(1, -1, -1).IMAGE] == [own]
    assert [it.ID for it in one.imagepool.info(-2, number, number).IMAGE] == [number]
