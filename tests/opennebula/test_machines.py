"""Machines: made once, waited for in every state, and always ended."""

import threading
import time
from typing import Any

import pytest

from snapferry.errors import Stopped
from snapferry.opennebula import (
    MachineFailed,
    NoSuchObject,
    attach_nic,
    create_image,
    create_template,
    deploy,
    detach_nic,
    enable_image,
    instantiate,
    list_machines,
    poweroff_hard,
    read_image,
    read_machine,
    release,
    resume,
    state_name,
    terminate_hard,
    update_machine,
    wait_machine,
)
from snapferry.opennebula.models import ImageState, Machine
from snapferry.opennebula.states import has_failed, is_resting, state_of
from tests.opennebula.conftest import World

EXTRA = {"SNAPFERRY_ID": "m1"}


def _template(world: World, **attributes: Any) -> int:
    image = create_image(
        world.client, name="web01-disk-0", size_bytes=4 << 20, datastore_id=1, image_type="OS", dev_prefix="vd",
        attributes={},
    )  # fmt: skip
    enable_image(world.client, image.id)
    values = {"CPU": "1", "VCPU": "1", "MEMORY": "64", "DISK": [{"IMAGE_ID": str(image.id)}]}
    return create_template(world.client, "web01", values | attributes).id


def _make(world: World) -> int:
    return instantiate(world.client, _template(world), "web01", hold=True, extra=EXTRA)


def _running(world: World) -> int:
    machine = _make(world)
    release(world.client, machine)
    wait_machine(world.client, machine, "RUNNING", 10)
    return machine


def test_a_machine_waits_on_hold_and_runs_after_its_release(world: World) -> None:
    machine = _make(world)
    assert state_name(wait_machine(world.client, machine, "HOLD", 5)) == "HOLD"
    for _ in range(2):
        release(world.client, machine)
    found = wait_machine(world.client, machine, "RUNNING", 10)
    assert state_name(found) == "RUNNING"
    assert found.host == "kvm1"
    assert found.attributes["SNAPFERRY_ID"] == "m1"
    release(world.client, machine)
    assert [one.id for one in list_machines(world.client)] == [machine]


def test_the_machine_of_a_killed_run_is_found_and_not_made_twice(world: World) -> None:
    template = _template(world)
    first = instantiate(world.client, template, "web01", hold=True, extra=EXTRA)
    assert instantiate(world.client, template, "web01", hold=True, extra=EXTRA) == first
    assert len(list_machines(world.client)) == 1


def test_a_machine_can_be_started_on_a_given_host(world: World) -> None:
    machine = _make(world)
    deploy(world.client, machine, 0)
    assert wait_machine(world.client, machine, "RUNNING", 10).host == "kvm1"
    deploy(world.client, machine, 0)


def test_power_off_and_resume_can_be_repeated(world: World) -> None:
    machine = _running(world)
    for _ in range(2):
        assert state_name(poweroff_hard(world.client, machine)) == "POWEROFF"
    for _ in range(2):
        resume(world.client, machine)
        assert state_name(wait_machine(world.client, machine, "RUNNING", 10)) == "RUNNING"


@pytest.mark.parametrize("fault", ["prolog", "boot"])
def test_a_failed_start_ends_the_wait_at_once_with_the_frontends_reason(world: World, fault: str) -> None:
    world.frontend.set_fault(fault, message="ssh: no route to host kvm1")
    machine = _make(world)
    release(world.client, machine)
    began = time.monotonic()
    with pytest.raises(MachineFailed, match=rf"{fault.upper()}_FAILURE.*no route to host"):
        wait_machine(world.client, machine, "RUNNING", 30)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("fault", [None, "prolog", "boot"])
def test_a_machine_is_ended_from_any_state_and_its_image_is_free_again(world: World, fault: str | None) -> None:
    if fault:
        world.frontend.set_fault(fault, message="broken")
    machine = _make(world)
    image = int(read_machine(world.client, machine).disks[0]["IMAGE_ID"])
    release(world.client, machine)
    wait_machine(world.client, machine, lambda one: state_name(one) == "RUNNING" or has_failed(state_of(one)), 10)
    for _ in range(2):
        terminate_hard(world.client, machine)
    assert list_machines(world.client) == []
    enable_image(world.client, image)
    assert read_image(world.client, image).state == ImageState.READY


def test_a_machine_on_hold_can_be_ended(world: World) -> None:
    machine = _make(world)
    terminate_hard(world.client, machine)
    assert state_name(wait_machine(world.client, machine, "DONE", 5)) == "DONE"


def test_a_machine_that_never_was_counts_as_gone(world: World) -> None:
    terminate_hard(world.client, 999)
    assert state_name(wait_machine(world.client, 999, "DONE", 1)) == "DONE"
    with pytest.raises(NoSuchObject):
        wait_machine(world.client, 999, "RUNNING", 1)


def test_a_state_of_a_later_version_is_waited_through(world: World) -> None:
    world.frontend.set_fault("unknown_state", lcm_state=99)
    machine = _make(world)
    release(world.client, machine)
    assert state_name(wait_machine(world.client, machine, "RUNNING", 10)) == "RUNNING"


def test_a_wait_ends_in_time_and_names_the_state(world: World) -> None:
    machine = _make(world)
    began = time.monotonic()
    with pytest.raises(MachineFailed, match=r"0\.3 s still in HOLD"):
        wait_machine(world.client, machine, "RUNNING", 0.3)
    assert time.monotonic() - began < 3


def test_a_machine_that_is_terminated_meanwhile_ends_the_wait(world: World) -> None:
    machine = _make(world)
    threading.Timer(0.2, lambda: terminate_hard(world.client, machine)).start()
    with pytest.raises(MachineFailed, match="ended in DONE"):
        wait_machine(world.client, machine, "RUNNING", 20)


def test_a_wait_ends_within_a_second_when_told_to(world: World) -> None:
    machine, stop = _make(world), threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        wait_machine(world.client, machine, "RUNNING", 60, stop)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("running", [True, False])
def test_a_nic_is_attached_and_detached_once_whatever_is_repeated(world: World, running: bool) -> None:
    machine = _running(world)
    if not running:
        poweroff_hard(world.client, machine)
    nic = {"NETWORK_ID": "0", "IP": "10.0.5.20", "MODEL": "virtio"}
    for _ in range(2):
        found = attach_nic(world.client, machine, nic)
    assert [one["IP"] for one in found.nics] == ["10.0.5.20"]
    for _ in range(2):
        assert detach_nic(world.client, machine, int(found.nics[0]["NIC_ID"])).nics == ()
    assert is_resting(state_of(read_machine(world.client, machine))) is not running


def test_attributes_of_a_machine_can_be_set_and_removed(world: World) -> None:
    machine = _make(world)
    update_machine(world.client, machine, {"SNAPFERRY_NOTE": {"A": 'x"y'}, "SNAPFERRY_ID": "m2"})
    assert read_machine(world.client, machine).attributes["SNAPFERRY_NOTE"] == {"A": 'x"y'}
    update_machine(world.client, machine, {"SNAPFERRY_NOTE": {}})
    found = read_machine(world.client, machine).attributes
    assert "SNAPFERRY_NOTE" not in found
    assert found["SNAPFERRY_ID"] == "m2"


@pytest.mark.parametrize(
    ("state", "lcm", "name", "failed"),
    [
        (3, 3, "RUNNING", False), (3, 36, "BOOT_FAILURE", True), (3, 39, "PROLOG_FAILURE", True),
        (8, 0, "POWEROFF", False),
        (3, 99, "LCM_99", False), (42, 0, "STATE_42", False),
        (-1, 0, "STATE_-1", False), (11, 0, "CLONING_FAILURE", True),
        (3, 61, "PROLOG_MIGRATE_UNKNOWN_FAILURE", True),
    ],
)  # fmt: skip
def test_every_state_has_a_name_and_no_number_is_an_error(state: int, lcm: int, name: str, failed: bool) -> None:
    machine = Machine(
        id=1, name="web01", state=state, lcm_state=lcm, template_id=None, error="", disks=(), nics=(), attributes={}
    )
    assert state_name(machine) == name
    assert has_failed(state_of(machine)) is failed


def test_the_failure_states_are_those_that_pyone_knows() -> None:
    from pyone import LCM_STATE

    for one in LCM_STATE:
        machine = Machine(
            id=1, name="", state=3, lcm_state=one.value, template_id=None, error="", disks=(), nics=(), attributes={}
        )
        assert has_failed(state_of(machine)) == one.name.endswith("FAILURE"), one
        assert state_name(machine) in (one.name, f"LCM_{one.value}")
