"""Templates: complete, repeatable, and a lock that only one run gets."""

import threading
import time

import pytest

from snapferry.opennebula import (
    Locked,
    NameTaken,
    NoSuchObject,
    build_template,
    create_template,
    delete_template,
    list_templates,
    lock_template,
    read_template,
    unlock_template,
    update_template,
)
from snapferry.opennebula.attributes import Value
from snapferry.plan import MigrationPlan
from tests.opennebula.conftest import World, make_vm

SMALL: dict[str, Value] = {"CPU": "1", "MEMORY": "64", "SNAPFERRY": {"ID": "m1", "OWN_ID": ""}}


def test_a_template_comes_back_as_it_was_built(world: World) -> None:
    vm = make_vm(annotation='The "web" server\nof <us> & them ]]> \x01', name="web01 [old]")
    plan = MigrationPlan(vm="web01", image_datastore="default")
    nics = [{"NETWORK_ID": "0", "MAC": "00:50:56:aa:bb:cc"}]
    built = build_template(vm, plan, [(vm.disks[0], 7), (vm.disks[1], 3)], nics, {"SNAPFERRY": {"ID": "m1"}})
    template = create_template(world.client, "web01", built)
    assert template.name == "web01"
    for name, value in built.items():
        found = template.attributes[name]
        assert (found if not isinstance(value, list) or isinstance(found, list) else [found]) == value, name


def test_the_template_of_a_killed_run_is_taken_and_brought_up_to_date(world: World) -> None:
    first = create_template(world.client, "web01", SMALL)
    again = create_template(world.client, "web01", SMALL | {"MEMORY": "128"})
    assert again.id == first.id
    assert again.attributes["MEMORY"] == "128"
    assert len(list_templates(world.client)) == 1


@pytest.mark.parametrize("other", [{"ID": "m2"}, {"ID": "m1", "OWN_ID": "0"}, {}])
def test_another_migrations_template_of_that_name_is_left_alone(world: World, other: dict[str, str]) -> None:
    create_template(world.client, "web01", {"CPU": "1", "MEMORY": "64", "SNAPFERRY": other})
    before = world.frontend.state()
    with pytest.raises(NameTaken):
        create_template(world.client, "web01", SMALL)
    assert world.frontend.state() == before


def test_an_update_replaces_every_disk_and_leaves_the_rest(world: World) -> None:
    template = create_template(world.client, "web01", SMALL | {"DISK": [{"IMAGE_ID": "1"}]})
    update_template(
        world.client, template.id, {"DISK": [{"IMAGE_ID": "5"}, {"IMAGE_ID": "6"}], "SNAPFERRY_CUTOVER": {}}
    )
    found = read_template(world.client, template.id).attributes
    assert found["DISK"] == [{"IMAGE_ID": "5"}, {"IMAGE_ID": "6"}]
    assert found["SNAPFERRY"] == {"ID": "m1"}


def test_deleting_can_be_repeated(world: World) -> None:
    template = create_template(world.client, "web01", SMALL)
    for _ in range(2):
        delete_template(world.client, template.id)
    with pytest.raises(NoSuchObject):
        read_template(world.client, template.id)


def test_one_of_many_gets_the_lock_and_the_others_learn_since_when(world: World) -> None:
    template = create_template(world.client, "web01", SMALL)
    got: list[int] = []
    refused: list[int] = []

    def take() -> None:
        try:
            got.append(lock_template(world.client, template.id).time)
        except Locked as error:
            refused.append(error.time)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(10)
    assert len(got) == 1
    assert refused == got * 7
    assert abs(got[0] - time.time()) < 60


def test_a_locked_template_can_be_updated_and_unlocking_can_be_repeated(world: World) -> None:
    template = create_template(world.client, "web01", SMALL)
    lock = lock_template(world.client, template.id)
    assert lock.level == 3
    update_template(world.client, template.id, {"SNAPFERRY_LEASE": {"TOKEN": "t"}})
    for _ in range(2):
        unlock_template(world.client, template.id)
    assert read_template(world.client, template.id).lock is None
    lock_template(world.client, template.id)
    unlock_template(world.client, template.id)
    delete_template(world.client, template.id)
    unlock_template(world.client, template.id)
