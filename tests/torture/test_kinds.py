"""Every kind of datastore by every route that it allows, with disks that are odd in every way: all ends equal."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, cast

import pytest

from snapferry import vsphere
from snapferry.cutover import cut_over
from snapferry.disk_readers import DiskReaders
from snapferry.lab import Lab, up
from snapferry.lab.config import (
    LabConfig,
    LabDatastore,
    LabDisk,
    LabNic,
    LabOneDatastore,
    LabOpenNebula,
    LabVCenter,
    LabVm,
    Workload,
)
from snapferry.lab.digest import file_extents_digest
from snapferry.lab.kinds import KINDS, KindName
from snapferry.migration import Migration
from snapferry.plan import Route
from snapferry.prepare import prepare
from snapferry.record import RoundResult
from snapferry.rounds import run_round
from snapferry.vmdk import LocalFile
from snapferry.vsphere.models import Snapshot, SourceDisk
from snapferry.watch import Watch

from ..engine.conftest import Ends
from ..engine.support import assert_equal, image_path
from ..odd import guest_writes

ROUTES: dict[KindName, tuple[Route, ...]] = {
    "vmfs6": (Route.NFC, Route.DATASTORE, Route.EXPORT),
    "vmfs5": (Route.NFC, Route.DATASTORE, Route.EXPORT),
    "nfs": (Route.NFC, Route.DATASTORE, Route.MOUNT, Route.EXPORT),
    "vsan": (Route.NFC, Route.EXPORT),
}
PLACES = 2
"""At so many places qemu-img looks at a disk that is too large to be compared as a whole."""
SEEDS = 30
EVERY_DAY = 1
"""So many seeds of each are a part of `make test`, which has 15 minutes; `make torture` runs the others."""
WRITES_A_SECOND = 400
GUEST = Workload(hot_bytes=4 << 20, sequential=0.2, zeros=0.15, unmaps=0.15)
FAST = LabOpenNebula(
    datastores=(LabOneDatastore(capacity_bytes=2000 << 40),), image_delay=(0.02, 0.1), step_delay=(0.01, 0.05)
)


class Share(NamedTuple):
    """The seeds that share one lab."""

    kind: KindName
    every_day: bool

    @property
    def seeds(self) -> range:
        return range(EVERY_DAY) if self.every_day else range(EVERY_DAY, SEEDS)


def cases() -> Iterator[Any]:
    """(share, route, number) of every case; those of one share run in one process, in its lab."""
    for share in (Share(kind, every_day) for every_day in (True, False) for kind in KINDS):
        group = pytest.mark.xdist_group(f"kinds, {share.kind} {share.every_day}")
        mark = pytest.mark.slow if share.every_day else pytest.mark.torture
        for route in ROUTES[share.kind]:
            for number in share.seeds:
                yield pytest.param(share, route, number, marks=[group, mark], id=f"{share.kind}-{route}-{number}")


def odd_vm(route: Route, seed: int, number: int) -> LabVm:
    """Four disks: up to 64 MiB, some sectors, past 128 GB, and 3 TiB; most end inside of a grain."""
    chance = random.Random(f"{seed} {route} {number}")
    sizes = (
        chance.randrange(1 << 20, 64 << 20) // 512 * 512,
        chance.randrange(1, 6000) * 512,
        (128 << 30) + chance.randrange(-4096, 4096) * 512,
        (3 << 40) + chance.choice((0, 512, 4096)),
    )
    disks = tuple(
        LabDisk(
            capacity_bytes=size,
            data_bytes=min(size, chance.randrange(512, 3 << 20)),
            data_runs=chance.randrange(1, 20),
            controller=chance.choice(("pvscsi", "lsilogic", "sata", "nvme")),
        )
        for size in sizes
    )
    nics = (LabNic(network="VM Network"),)
    write_bytes = chance.choice((512, 4 << 10, 12 << 10))
    guest = GUEST.model_copy(update={"write_bytes": write_bytes, "rate_bytes": WRITES_A_SECOND * write_bytes})
    return LabVm(
        name=f"{route}{number}", disks=disks, nics=nics, workload=guest, power="off", change_tracking=True,
        shutdown_seconds=0.05,
    )  # fmt: skip


class Labs:
    """The lab of a share, with one datastore of its kind and a VM for each case; one lab at a time."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed = seed
        self._folder = folder
        self._running: tuple[Share, Lab] | None = None

    def of(self, share: Share) -> Lab:
        """The share's lab, which stays up until another one's is asked for."""
        if not self._running or self._running[0] != share:
            self.close()
            vms = tuple(odd_vm(route, self._seed, number) for route in ROUTES[share.kind] for number in share.seeds)
            stores = (LabDatastore(name=share.kind, kind=share.kind, capacity_bytes=2000 << 40),)
            source = LabVCenter(datastores=stores, vms=vms, change_page_extents=50)
            config = LabConfig(seed=self._seed, vcenter=source, opennebula=FAST)
            self._running = share, up(config, self._folder / f"{share.kind} {share.every_day}")
        return self._running[1]

    def close(self) -> None:
        if self._running:
            self._running[1].close()


@pytest.fixture(scope="module")
def labs(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    with closing(Labs(seed, tmp_path_factory.mktemp("kinds"))) as labs:
        yield labs


@pytest.mark.parametrize(("share", "route", "number"), list(cases()))
def test_every_kind_by_every_route_arrives_equal(
    share: Share, route: Route, number: int, labs: Labs, ends: Ends, tmp_path: Path
) -> None:
    lab, name = labs.of(share), f"{route}{number}"
    mounts = {share.kind: str(lab.folder / "datastores" / share.kind)} if route == Route.MOUNT else {}
    migration = ends.migration(lab, name, route=str(route), mounts=mounts)
    by = {route, Route.NFC} if route == Route.EXPORT else {route}  # of a part of a disk there is no export
    off = route == Route.DATASTORE and share.kind == "vmfs6"  # it locks the files of a VM that runs
    lab.control.power_on(name)
    frozen = [freeze(migration, lab, one) for one in range(2)]
    if off:
        lab.control.power_off(name)
    for snapshot in frozen:
        check_readers(migration, lab, route, snapshot, tmp_path)
    for snapshot in frozen:
        vsphere.remove_snapshot(migration.source, migration.vm, snapshot.moref)
    migration.refresh()
    prepare(migration, Watch())
    assert routes(run_round(migration, Watch())) == {route}
    if off:
        lab.control.power_on(name)
    guest_writes(lab, 100, name)
    delta = run_round(migration, Watch())
    assert delta.kind == "delta" and routes(delta) <= ({Route.NFC} if off else by)
    guest_writes(lab, 30, name)
    final = cut_over(migration, Watch()).final
    assert final and routes(final) <= by
    assert_equal(lab, migration)
    for disk in migration.vm.disks:
        same_for_qemu(lab, image_path(migration, migration.planned.disk(disk)), disk)


def freeze(migration: Migration, lab: Lab, number: int) -> Snapshot:
    """A snapshot, and a guest that writes on."""
    name = vsphere.snapshot_name("states", number)
    made = vsphere.create_snapshot(migration.source, migration.vm, name, "")
    guest_writes(lab, 60, migration.vm.name)
    return made


def check_readers(migration: Migration, lab: Lab, route: Route, snapshot: Snapshot, folder: Path) -> None:
    """What the route's readers give of a snapshot is what the lab holds, and what qemu-img reads of its chain."""
    migration.refresh()
    with DiskReaders(migration, snapshot.moref, snapshot.disks, Event()) as readers:
        for index, disk in enumerate(snapshot.disks):
            tracking = vsphere.ChangeTracking(migration.source, migration.vm.moref, snapshot.moref, disk)
            raw = folder / f"{disk.key}.raw"
            with raw.open("wb") as file:
                file.truncate(disk.capacity_bytes)
                reader = readers.open(route, disk)
                for block in reader.read(tracking.since(None), Event()):
                    if block.data is not None:
                        file.seek(block.offset)
                        file.write(block.data)
                reader.close()
            assert file_extents_digest(raw) == lab.control.extents_digest(migration.vm.name, index, snapshot.moref)
            same_for_qemu(lab, raw, disk)


def same_for_qemu(lab: Lab, raw: Path, disk: SourceDisk) -> None:
    """qemu-img reads the same bytes from the disk's own chain, where it has files.

    It asks grain by grain where bytes are: of a disk of many GB it reads some places with data, the last one too.
    """
    if not KINDS[cast(KindName, disk.datastore_kind)].has_files:
        return
    vmdk = lab.folder / "datastores" / disk.datastore / disk.file_name.partition("] ")[2]
    if disk.capacity_bytes < 1 << 30:
        qemu_img("compare", "-f", "raw", "-F", "vmdk", str(raw), str(vmdk))
        return
    with closing(LocalFile(raw, raw.name)) as file:
        places = [start for start, _ in file.data_extents()]
        for start in {*random.Random(disk.file_name).sample(places, min(PLACES, len(places))), places[-1]}:
            # its `count` begins at the disk's start
            sectors = min(1 << 20, disk.capacity_bytes - start) // 512
            piece = raw.with_name("piece.raw")
            where = ["bs=512", f"skip={start // 512}", f"count={start // 512 + sectors}", f"if={vmdk}", f"of={piece}"]
            qemu_img("dd", "-U", "-f", "vmdk", "-O", "raw", *where)
            assert piece.read_bytes() == file.read(start, sectors * 512), f"{disk.label} at {start}"


def qemu_img(*command: str) -> None:
    """Runs it; it has to succeed."""
    done = subprocess.run(["qemu-img", *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def routes(result: RoundResult) -> set[str]:
    return {disk.route for disk in result.disks}
