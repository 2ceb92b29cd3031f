"""`snapferry plan` writes a plan that loads, and that says what every field means."""

from pathlib import Path

import pytest
import yaml

from snapferry.cli.plan_text import plan_text
from snapferry.opennebula.models import Network
from snapferry.plan import MigrationPlan
from snapferry.vsphere.models import PowerState, SourceDisk, SourceNic, SourceVm

LAN = Network(id=7, name="lan", attributes={"VCENTER_NETWORK_MATCH": "VM Network"}, ranges=())
DMZ = Network(id=8, name="dmz", attributes={}, ranges=())


def source_vm(*networks: str) -> SourceVm:
    disk = SourceDisk(
        key=2000, label="Hard disk 1", capacity_bytes=2 << 30, backing_uuid="6000C29a", file_name="[san1] a/a.vmdk",
        datastore="san1", datastore_kind="vmfs6", controller="pvscsi", controller_bus=0, unit=0, change_id=None,
        mode="persistent",
    )  # fmt: skip
    nics = tuple(
        SourceNic(key=4000 + number, mac=f"00:50:56:00:00:0{number}", network=network, adapter="vmxnet3",
                  connected=True, start_connected=True)
        for number, network in enumerate(networks)
    )  # fmt: skip
    return SourceVm(
        moref="vm-7", name="web: 01", instance_uuid="5000", bios_uuid="4200", path="/Vienna/dc1/vm/prod/web: 01",
        vcenter_uuid="1", power=PowerState.ON, host="esx1", cpus=2, cores_per_socket=1, memory_mib=2048,
        firmware="efi", secure_boot=False, guest_id="debian12_64Guest", guest_full_name="Debian GNU/Linux 12",
        host_name=None, tools="running", hardware_version=19, change_tracking=False, change_tracking_supported=True,
        consolidation_needed=False, is_template=False, annotation="", boot_time=None, disks=(disk,), nics=nics,
    )  # fmt: skip


def written(*networks: str) -> str:
    return plan_text(source_vm(*networks), [LAN, DMZ], "web: 01", "default", "vcenter", "opennebula")


def test_the_plan_loads_and_changes_no_default() -> None:
    plan = MigrationPlan.from_yaml(written("VM Network"), "web01.yaml")
    assert plan == MigrationPlan(vm="web: 01", image_datastore="default")


def test_every_field_stands_there_with_its_meaning() -> None:
    text = written("VM Network")
    for name, field in MigrationPlan.model_fields.items():
        key = field.alias or name
        assert f"\n{key}:" in text or f"\n# {key}:" in text, key
    assert "Downtime" not in text
    assert "# How long the gate waits for an answer." in text


def test_a_commented_default_is_valid_once_it_is_uncommented() -> None:
    text = written("VM Network")
    defaults = [line.removeprefix("# ") for line in text.splitlines() if line.startswith(("# max_rounds:", "# floor:"))]
    plan = MigrationPlan.from_yaml(text + "\n".join(defaults) + "\n", "web01.yaml")
    assert (plan.max_rounds, plan.floor_bytes) == (10, 64 << 20)


def test_a_network_that_an_attribute_maps_needs_no_rule() -> None:
    assert "'VM Network' goes to 'lan'" in written("VM Network")


def test_a_network_that_nothing_maps_is_left_to_choose_with_the_names_there_are() -> None:
    text = written("VM Network", "DMZ 7")
    assert "# To be chosen; the target has: lan, dmz." in text
    rule = yaml.safe_load(text.split("# networks:\n")[1].split("\n\n")[0].replace("#", ""))
    assert rule == {"DMZ 7": "CHOOSE"}


@pytest.mark.parametrize("name", ["O'Reilly", "true", "0123", "a: b # c"])
def test_any_name_of_a_vm_survives(name: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(plan_text(source_vm(), [], name, "default", "vcenter", "opennebula"))
    assert MigrationPlan.load(file).vm == name
