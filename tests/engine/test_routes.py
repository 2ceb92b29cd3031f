"""Which way to a disk's bytes is taken, by datastore, power state and plan."""

from typing import Any

import pytest

from snapferry.plan import MigrationPlan, Route
from snapferry.routes import closed, ways_to
from snapferry.vsphere.models import PowerState, SourceDisk

DISK = SourceDisk(
    key=2000, label="Hard disk 1", capacity_bytes=4 << 30, backing_uuid="6000C29a", file_name="[st1] web01/web01.vmdk",
    datastore="st1", datastore_kind="vmfs6", controller="pvscsi", controller_bus=0, unit=0, change_id="52/1",
    mode="persistent",
)  # fmt: skip


def plan(**fields: Any) -> MigrationPlan:
    return MigrationPlan.model_validate({"vm": "web01", "image_datastore": "default", **fields})


def routes(kind: str, power: PowerState, asked: MigrationPlan | None = None, **wanted: Any) -> list[str]:
    return [str(one.route) for one in ways_to(DISK.model_copy(update={"datastore_kind": kind}), power, asked, **wanted)]


@pytest.mark.parametrize(
    ("kind", "power", "expected"),
    [
        ("vmfs6", PowerState.ON, ["nfc", "export"]),
        ("vmfs6", PowerState.OFF, ["nfc", "datastore", "export"]),
        ("vmfs5", PowerState.ON, ["nfc", "datastore", "export"]),
        ("nfs", PowerState.ON, ["nfc", "datastore", "export"]),
        ("vsan", PowerState.OFF, ["nfc", "export"]),
        ("vvol", PowerState.ON, ["nfc", "export"]),
    ],
)
def test_the_ways_that_are_open(kind: str, power: PowerState, expected: list[str]) -> None:
    assert routes(kind, power) == expected
    assert routes(kind, power, whole=False) == expected[:-1]  # an export has no part of a disk


def test_a_mounted_datastore_comes_first_and_only_where_it_is_nfs() -> None:
    mounted = plan(mounts={"st1": "/mnt/st1"})
    assert routes("nfs", PowerState.ON, mounted)[0] == "mount"
    assert "mount" not in routes("vmfs6", PowerState.OFF, mounted)


def test_what_the_plan_asks_for_goes_first_where_it_is_open() -> None:
    asked = plan(route="export")
    assert routes("vmfs6", PowerState.ON, asked) == ["export", "nfc"]
    assert routes("vmfs6", PowerState.ON, asked, whole=False) == ["nfc"]
    assert ways_to(DISK, PowerState.ON, asked)[0].why.startswith("the plan asks for it")


def test_the_route_that_served_last_goes_before_those_that_failed_then() -> None:
    assert routes("nfs", PowerState.ON, last="datastore") == ["datastore", "nfc", "export"]
    assert routes("vmfs6", PowerState.ON, last="datastore") == ["nfc", "export"]
    assert routes("nfs", PowerState.ON, plan(route="nfc"), last="datastore")[0] == "nfc"


@pytest.mark.parametrize(
    ("kind", "power", "route", "why"),
    [
        ("vsan", PowerState.OFF, Route.DATASTORE, "a disk on vsan has no files"),
        ("vmfs6", PowerState.ON, Route.DATASTORE, "vmfs6 locks a running VM's files"),
        ("nfs", PowerState.ON, Route.MOUNT, "has no NFS datastore st1"),
        ("nfs", PowerState.ON, Route.DATASTORE, ""),
        ("vsan", PowerState.ON, Route.EXPORT, ""),
    ],
)
def test_a_route_that_is_closed_says_why(kind: str, power: PowerState, route: Route, why: str) -> None:
    found = closed(DISK.model_copy(update={"datastore_kind": kind}), power, route, plan())
    assert why in found and bool(why) == bool(found)
