"""What has to be put right first is named, with the next step, and nothing is left on either side."""

from collections.abc import Callable
from typing import Any

import pytest

from snapferry import opennebula, vsphere
from snapferry.errors import PlanError, Refused, SnapferryError
from snapferry.lab import Lab
from snapferry.lab.config import (
    LabConfig,
    LabNetwork,
    LabNic,
    LabOneDatastore,
    LabOpenNebula,
    LabUser,
    LabVCenter,
)
from snapferry.prepare import prepare
from snapferry.vsphere.privileges import REQUIRED_PRIVILEGES
from snapferry.watch import Watch

from .conftest import Ends, small_vm

pytestmark = pytest.mark.slow


def refused_without_trace(lab: Lab, kind: type[SnapferryError], act: Callable[[], Any], *says: str) -> None:
    """The act is refused with these words and a next step, and both ends are as before."""
    before = lab.control.inventory()
    with pytest.raises(kind) as caught:
        act()
    for part in says:
        assert part in str(caught.value)
    assert caught.value.next_step, "what should the operator do?"
    assert lab.control.inventory() == before


def test_a_wrong_password_is_named_at_either_end(lab: Lab, ends: Ends) -> None:
    refused_without_trace(
        lab, vsphere.WrongPassword, lambda: vsphere.list_vms(ends.source(lab, password="canary-1")), "user"
    )
    refused_without_trace(lab, opennebula.WrongPassword, lambda: ends.target(lab, secret="canary-2").version())


def test_a_certificate_that_isnt_trusted_ends_before_the_password_is_sent(lab: Lab, ends: Ends) -> None:
    refused_without_trace(
        lab, vsphere.CertificateNotTrusted, lambda: vsphere.list_vms(ends.source(lab, ca_pem=None)), "certificate"
    )
    refused_without_trace(
        lab, opennebula.CertificateNotTrusted, lambda: ends.target(lab, ca_pem=None).version(), "certificate"
    )


def test_an_unknown_vm_is_named_with_those_that_are_near(lab: Lab, ends: Ends) -> None:
    refused_without_trace(lab, PlanError, lambda: ends.migration(lab, "web02"), "web02", "web01")


def test_an_ambiguous_vm_is_named_with_the_paths_to_choose_from(
    make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(folder="prod"), small_vm(folder="test")))))
    refused_without_trace(
        lab, PlanError, lambda: ends.migration(lab, "web01"), "/Vienna/dc1/vm/prod/web01", "/Vienna/dc1/vm/test/web01"
    )


def test_a_missing_privilege_is_named(make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    lacks = "VirtualMachine.Provisioning.DiskRandomRead"
    user = LabUser(name="mover", privileges=tuple(set(REQUIRED_PRIVILEGES) - {lacks}))
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(),), users=(user,))))
    migration = ends.migration(lab)
    migration.source = ends.source(lab, user="mover")
    refused_without_trace(lab, vsphere.MissingPrivilege, lambda: prepare(migration, Watch()), lacks, "web01")


def test_a_user_with_just_the_documented_privileges_can_move_a_vm(
    make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    from .support import assert_equal, migrate

    user = LabUser(name="mover", privileges=tuple(REQUIRED_PRIVILEGES))
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(),), users=(user,))))
    migration = ends.migration(lab)
    migration.source = ends.source(lab, user="mover")
    assert migrate(migration)[1].outcome == "migrated"
    assert_equal(lab, migration)


def test_an_unmapped_network_is_named(make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    vm = small_vm(nics=(LabNic(network="DMZ"),))
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(vm,), networks=("VM Network", "DMZ"))))
    refused_without_trace(
        lab, opennebula.UnmappedNetwork, lambda: prepare(ends.migration(lab), Watch()), "DMZ", "VCENTER_NETWORK_MATCH"
    )


def test_a_network_that_two_others_claim_is_refused(make_lab: Callable[[LabConfig], Lab], ends: Ends) -> None:
    one = LabOpenNebula(
        networks=(
            LabNetwork(name="a", match="VM Network"),
            LabNetwork(name="b", first_ip="10.0.6.10", match="VM Network"),
        )
    )
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(),)), opennebula=one))
    refused_without_trace(lab, Refused, lambda: prepare(ends.migration(lab), Watch()), "VM Network")


def test_a_datastore_that_is_too_small_is_named_with_the_numbers(
    make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    one = LabOpenNebula(datastores=(LabOneDatastore(capacity_bytes=40 << 20),))
    lab = make_lab(LabConfig(vcenter=LabVCenter(vms=(small_vm(),)), opennebula=one))
    refused_without_trace(lab, opennebula.NoSpace, lambda: prepare(ends.migration(lab), Watch()), "default", "58 MiB")


def test_an_unknown_datastore_is_named(lab: Lab, ends: Ends) -> None:
    refused_without_trace(
        lab, SnapferryError, lambda: prepare(ends.migration(lab, image_datastore="fast"), Watch()), "fast"
    )


def test_a_name_that_is_taken_at_the_target_is_refused(lab: Lab, ends: Ends) -> None:
    opennebula.create_template(ends.target(lab), "web01", {"MEMORY": "64"})
    refused_without_trace(
        lab, opennebula.NameTaken, lambda: prepare(ends.migration(lab), Watch()), "web01", "target_name"
    )


def test_an_image_that_cant_be_made_leaves_nothing(lab: Lab, ends: Ends) -> None:
    before = lab.control.inventory()
    for fault, arguments, says in (
        ("one_image_error", {"message": "no route to the storage"}, "no route to the storage"),
        ("one_drop_answer", {"method": "image.allocate"}, "can't be reached"),  # it is made, and nobody knows its ID
        ("one_refuse", {"method": "image.enable", "message": "not now"}, "not now"),
    ):
        lab.control.set_fault(fault, **arguments)
        with pytest.raises(SnapferryError, match=says):
            prepare(ends.migration(lab), Watch())
        assert lab.control.inventory() == before
