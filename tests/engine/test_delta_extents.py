"""What delta files tell covers every byte that the guest changed since a snapshot, and nothing else but its blocks."""

import random
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapferry.delta_files import BLOCK_BYTES, BaseGone, DeltaFiles, DeltaFilesUnreadable
from snapferry.errors import SourceError
from snapferry.transfer import Extents
from snapferry.vmdk import Folder, LocalFolder
from snapferry.vsphere.models import SourceDisk

from ..vmdk.builders import SECTOR, SESPARSE_GRAIN, ChainBuilder


def deltas(built: ChainBuilder, frozen: str, capacity: int | None = None) -> DeltaFiles:
    """The delta files over the one that a snapshot froze."""
    disk = SourceDisk(
        key=2000, label="Hard disk 1", capacity_bytes=capacity or built.capacity, backing_uuid="6000C29a",
        file_name=f"[nfs1] {built.leaf}", datastore="nfs1", datastore_kind="nfs", controller="pvscsi",
        controller_bus=0, unit=0, change_id=None, mode="persistent",
    )  # fmt: skip

    def open_folder(_: ExitStack) -> Folder:
        return LocalFolder(built.folder)

    return DeltaFiles(open_folder, disk, lambda snapshot: {"snapshot-1": frozen}[snapshot])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 30),
    sectors=st.integers(1, 40_000),
    sparse=st.booleans(),
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    base=st.integers(0, 4),
)
def test_they_name_the_blocks_of_all_that_was_written_since_and_no_others(
    seed: int, sectors: int, sparse: bool, counts: list[int], base: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    built = ChainBuilder(tmp_path_factory.mktemp("chain"), sectors * SECTOR, random.Random(seed))
    frozen, held = [built.leaf], [bytes(built.bytes)]
    for count in counts:
        (built.add_sesparse if sparse else built.add_cowd)(count)
        frozen.append(built.leaf)
        held.append(bytes(built.bytes))
    base = min(base, len(counts))
    found = deltas(built, f"[nfs1] {frozen[base]}").since("snapshot-1")
    grain = SESPARSE_GRAIN if sparse else SECTOR
    written = [number * grain for named in built.named[base:] for number in named]
    assert found == Extents.of(written, [grain] * len(written)).aligned(BLOCK_BYTES, built.capacity)
    before, now = (np.frombuffer(one, dtype=np.uint8) for one in (held[base], held[-1]))
    differing = np.flatnonzero(before != now)
    assert not len(Extents.of(differing, np.ones_like(differing)).subtract(found))


def test_a_disk_that_stands_on_another_base_and_files_that_cant_be_read_are_told_apart(tmp_path: Path) -> None:
    built = ChainBuilder(tmp_path, 1 << 20, random.Random(1))
    built.add_cowd(5)
    cases: list[tuple[DeltaFiles, type[SourceError], str]] = [
        (deltas(built, "[nfs1] web01/web01-000009.vmdk"), BaseGone, "doesn't stand on"),
        (deltas(built, "[nfs1] web01.vmdk", 2 << 20), DeltaFilesUnreadable, "not of 2097152"),
    ]
    for told, kind, says in cases:
        with pytest.raises(kind, match=says):
            told.since("snapshot-1")
    assert deltas(built, "[nfs1] web01.vmdk").since(None) == Extents.whole(1 << 20)
    delta = tmp_path / "web01-000001-delta.vmdk"
    delta.write_bytes(delta.read_bytes()[:3000])
    with pytest.raises(DeltaFilesUnreadable, match="can't be read"):
        deltas(built, "[nfs1] web01.vmdk").since("snapshot-1")
