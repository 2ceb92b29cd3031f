"""The demo from a user's shell: it moves a VM, proves it, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from snapferry.cli.demo.processes import end_all, find_all
from snapferry.cli.demo.scene import GIB, MIB, PLAN, lab_config
from snapferry.lab import LabConfig
from snapferry.plan import MigrationPlan

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
SECONDS = 420

pytestmark = pytest.mark.xdist_group("demo")  # one at a time: each wants the machine for itself


def demo_command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "snapferry.cli", "demo", "--folder", str(folder / "demo"), *options]


def test_the_first_seed_has_the_sizes_that_the_readme_promises() -> None:
    (vm,) = lab_config(1).vcenter.vms
    assert [disk.capacity_bytes for disk in vm.disks] == [2 * GIB, GIB + 512]
    assert vm.workload.rate_bytes >= 5_000_000


@pytest.mark.parametrize("seed", range(20))
def test_every_seed_has_enough_data_and_writes_enough(seed: int) -> None:
    (vm,) = lab_config(seed).vcenter.vms
    assert sum(disk.data_bytes for disk in vm.disks) >= 700 * MIB
    assert all(disk.capacity_bytes % 512 == 0 for disk in vm.disks)
    assert vm.workload.rate_bytes >= 5_000_000


def test_another_seed_changes_size_content_and_workload() -> None:
    one, two = (lab_config(seed).vcenter.vms[0] for seed in (1, 2))
    assert [disk.capacity_bytes for disk in one.disks] != [disk.capacity_bytes for disk in two.disks]
    assert one.workload != two.workload
    assert lab_config(1).seed != lab_config(2).seed


def test_the_lab_of_a_seed_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(lab_config(3).model_dump_json())
    assert LabConfig.from_file(file) == lab_config(3)


def test_the_plan_of_the_demo_is_a_valid_one() -> None:
    assert MigrationPlan.from_yaml(PLAN, "plan").gate


def test_a_folder_that_no_demo_made_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("all of it")
    done = subprocess.run(demo_command(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "isn't a demo's folder" in done.stderr
    assert (tmp_path / "demo" / "thesis.txt").exists()


@pytest.mark.slow
def test_a_running_vm_with_two_disks_moves_and_both_ends_are_equal(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    poisoned = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "SNAPFERRY_VCENTER_HOST": "gone.example.org"}
    command = demo_command(tmp_path, "--seed", "2", "--report", str(report))
    done = subprocess.run(command, env=poisoned, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    check_report(json.loads(report.read_text()))
    assert "the gate asks" in done.stdout
    assert (tmp_path / "demo").stat().st_mode & 0o777 == 0o700
    assert end_all(tmp_path / "demo") == 0


def check_report(report: dict[str, Any]) -> None:
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["phase"] == "migrated"
    for disk in report["disks"]:
        assert disk["source_sha256"] == disk["target_sha256"], disk["label"]
    deltas = [one["changed_bytes"] for one in report["rounds"] if one["kind"] == "delta"]
    assert len(deltas) >= 3
    assert deltas == sorted(deltas, reverse=True), "each delta is smaller than the one before"
    assert report["rounds"][0]["kind"] == "base"
    assert report["rounds"][0]["copied_bytes"] >= 700 * MIB
    assert report["downtime_seconds"] == pytest.approx(sum(report["downtime_parts"].values()), abs=1.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.torture)],
)
def test_an_interrupted_demo_leaves_no_process(number: int, status: int, tmp_path: Path) -> None:
    demo = subprocess.Popen(demo_command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "presync-vm/presync-web01: http" in line:  # server, lab and worker are up
                break
        assert len(close_all(find_all(tmp_path / "demo"))) >= 4
        demo.send_signal(number)
        assert demo.wait(60) == status
        assert ended(tmp_path / "demo")
    finally:
        demo.kill()
        end_all(tmp_path / "demo")


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_demo_which_says_so(tmp_path: Path) -> None:
    demo = subprocess.Popen(demo_command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert demo.stdout is not None and demo.stderr is not None
        for line in demo.stdout:
            if "presync-vm/presync-web01: http" in line:
                break
        (worker,) = [pid for pid in close_all(find_all(tmp_path / "demo")) if "worker" in command_line(pid)]
        os.kill(worker, signal.SIGKILL)
        assert demo.wait(60) == 1
        assert "The worker ended" in demo.stderr.read()
        assert ended(tmp_path / "demo")
    finally:
        demo.kill()
        end_all(tmp_path / "demo")


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def ended(folder: Path) -> bool:
    """Whether all processes of a demo end in time by themselves."""
    import select

    poll = select.poll()
    handles = find_all(folder)
    for handle in handles.values():
        poll.register(handle, select.POLLIN)
    left = len(handles)
    while left:
        gone = poll.poll(30_000)
        if not gone:
            break
        for handle, _ in gone:
            poll.unregister(handle)
        left -= len(gone)
    close_all(handles)
    return left == 0


def close_all(handles: dict[int, int]) -> list[int]:
    for handle in handles.values():
        os.close(handle)
    return list(handles)
