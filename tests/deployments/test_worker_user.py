"""The worker runs as the user who owns the images' files, as it does at a real site; root isn't needed."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.lab import Lab, up
from snapferry.lab.config import LabConfig, LabVCenter

from ..engine.support import assert_equal
from .conftest import FAST, Site, kill_all, quick_vm, save_blocks
from .support import open_migration, plan, run

pytestmark = pytest.mark.slow
USER = "daemon"
"""Every Debian has it."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of that user's; pytest's own can't be passed by others than who runs the tests."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a worker as another user")
    folder = Path(tempfile.mkdtemp(prefix="snapferry-worker-"))
    try:
        shutil.chown(folder, USER, USER)
        tried = subprocess.run(
            [sys.executable, "-c", "import os, snapferry.plan; os.listdir('.')"], cwd=folder, user=USER, group=USER,
            extra_groups=[], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if tried.returncode:
            pytest.skip(f"{USER} can't reach this checkout or its Python: {tried.stderr.strip().splitlines()[-1]}")
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def owned_lab(folder: Path) -> Iterator[Lab]:
    """A lab whose datastore files belong to that user."""
    frontend = FAST.model_copy(update={"owner": USER})
    with up(LabConfig(vcenter=LabVCenter(vms=(quick_vm("owned"),)), opennebula=frontend), folder / "lab") as lab:
        yield lab


def test_a_worker_that_isnt_root_migrates_into_files_of_its_own(idle_site: Site, owned_lab: Lab, folder: Path) -> None:
    save_blocks("owned", owned_lab)
    moved = plan("owned", site="owned", gate=False)
    idle_site.kill_worker()  # this run is for the other one
    worker = idle_site.start_worker(folder, USER)
    try:
        done = run("migrate-vm/migrate", moved)
    finally:
        kill_all(folder)
        worker.wait(timeout=30)
    assert done.outcome == "completed", done
    with open_migration(moved) as migration:
        assert_equal(owned_lab, migration)
    uid = pwd.getpwnam(USER).pw_uid
    results = [one for one in (folder / "home").rglob("*") if one.is_file()]
    images = [one for one in (owned_lab.folder / "opennebula" / "datastores" / "1").iterdir() if one.is_file()]
    assert results and len(images) == 2
    assert {one.stat().st_uid for one in (*results, *images)} == {uid}
