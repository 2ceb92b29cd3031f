"""The lab as a whole: starting, ending, and what it leaves to be seen."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.errors import PlanError
from snapferry.lab import Endpoints, Lab, LabConfig, LabControl, LabFailed, describe, up
from snapferry.lab.config import LabOpenNebula, LabVCenter, LabVm


def processes_of(folder: Path) -> set[int]:
    """The processes whose command line or working directory is in a lab's folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (
                str(folder) in (entry / "cmdline").read_text() or (entry / "cwd").readlink() == folder
            ):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 15
    while processes_of(folder):
        assert time.monotonic() < deadline, processes_of(folder)
        time.sleep(0.05)  # nothing tells of the end of another process's children


@pytest.mark.slow
def test_a_lab_is_up_soon_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    began = time.monotonic()
    with up(LabConfig(), folder) as lab:
        took = time.monotonic() - began
        assert lab.running
        assert len(processes_of(folder)) == 2  # the control process and one host
    assert not processes_of(folder)
    assert took < 20  # 3 s where nothing else runs


def test_the_endpoints_file_is_for_its_owner_only_and_passwords_are_nowhere_else(lab: Lab) -> None:
    path = lab.folder / "endpoints.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(lab.folder.stat().st_mode) == 0o700
    assert Endpoints.model_validate_json(path.read_text()) == lab.endpoints
    ends = lab.endpoints
    secrets = [ends.vcenter_password, ends.opennebula_password, ends.control_token, *ends.users.values()]
    assert len(set(secrets)) == len(secrets)
    lines = [
        (Path("/proc") / str(pid) / part).read_text()
        for pid in processes_of(lab.folder)
        for part in ("cmdline", "environ")
    ]
    texts = [*lines, (lab.folder / "lab.log").read_text(), describe(ends)]
    assert not [secret for secret in secrets for text in texts if secret in text]
    keys = list(lab.folder.glob("*.key"))
    assert keys
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_everything_listens_on_loopback_only(lab: Lab) -> None:
    inodes = set()
    for pid in processes_of(lab.folder):
        for link in (Path("/proc") / str(pid) / "fd").iterdir():
            inodes.add(str(link.readlink()))
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                listening.append(fields[1].partition(":")[0])
    assert len(listening) >= 7  # vCenter, OpenNebula, control; NFC and /folder of both hosts
    assert set(listening) == {"0100007F"}


@pytest.fixture
def short_folder() -> Iterator[str]:
    """The path of a Unix socket can't have over 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


STARTER = """
import sys, time
from pathlib import Path
from snapferry.lab import LabConfig, up
lab = up(LabConfig(), Path(sys.argv[1]))
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_the_parents_death_ends_all(tmp_path: Path, short_folder: str) -> None:
    folder = tmp_path / "lab"
    temporary = {"TMPDIR": short_folder}  # multiprocessing's socket stays there where its process is killed
    command = [sys.executable, "-c", STARTER, str(folder)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | temporary)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        assert len(processes_of(folder)) == 3
    finally:
        parent.kill()
        parent.wait(10)
        assert parent.stdout is not None
        parent.stdout.close()
    wait_until_gone(folder)


@pytest.mark.slow
def test_where_its_process_cant_be_started_the_labs_failure_says_so(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", STARTER, str(tmp_path / "lab")], env=os.environ | {"TMPDIR": str(deep)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "LabFailed: The control process can't be started: AF_UNIX path too long." in done.stderr
    assert not processes_of(tmp_path / "lab")


@pytest.mark.slow
def test_the_control_process_takes_its_hosts_along(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    with up(LabConfig(), folder) as lab:
        os.kill(lab.endpoints.pid, signal.SIGKILL)
        wait_until_gone(folder)
        assert not lab.running
        with pytest.raises(LabFailed):
            lab.control.counters()


@pytest.mark.slow
def test_a_lab_that_can_not_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    ownerless = LabConfig(opennebula=LabOpenNebula(owner="nobody-of-this-name"))
    with pytest.raises(LabFailed, match="nobody-of-this-name") as caught:
        up(ownerless, tmp_path / "lab")
    assert "lab.log" in str(caught.value)
    assert not processes_of(tmp_path / "lab")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    with pytest.raises(LabFailed, match="other things"):
        up(LabConfig(), tmp_path)
    (tmp_path / "lab.log").touch()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(LabFailed, match="other things"):
        up(LabConfig(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"hosts", "lab.log", "thesis.txt"}


@pytest.mark.slow
def test_a_folder_is_used_again_only_once_its_lab_has_ended(tmp_path: Path) -> None:
    with up(LabConfig(), tmp_path) as first:
        with pytest.raises(LabFailed, match="is running"):
            up(LabConfig(), tmp_path)
        assert first.control.counters().sessions == 0
    with up(LabConfig(), tmp_path) as second:
        assert second.endpoints.control_token != first.endpoints.control_token


@pytest.mark.slow
def test_ctrl_c_ends_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    command = [sys.executable, "-m", "snapferry.lab", "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            seen = process.stdout.readline()
            assert "vCenter" in seen
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert "password" not in seen
        finally:
            process.kill()
    wait_until_gone(folder)


def test_a_lab_yaml_is_read_and_its_mistakes_named(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("seed: 4\nvcenter:\n  vms:\n  - {name: a, disks: [{capacity: 2 GiB}], workload: {rate: 5 MB/s}}\n")
    config = LabConfig.from_file(path)
    assert config.vcenter.vms[0].disks[0].capacity_bytes == 2 << 30
    assert config.vcenter.vms[0].workload.rate_bytes == 5_000_000
    assert LabConfig.model_validate(json.loads(config.model_dump_json())) == config
    for text, message in (
        ("vcenter: {vms: [{name: a, disks: [], hosst: x}]}", "vcenter.vms.0.hosst"),
        ("vcenter: {vms: [{name: a, disks: [], host: x}]}", "there is no host x"),
        ("vcenter: {vms: [{name: a, disks: [{capacity: 1 GiB, datastore: x}]}]}", "there is no datastore x"),
        ("vcenter: {datastores: [{name: a, kind: floppy}]}", "vcenter.datastores.0.kind"),
        ("vcenter: [", "isn't YAML"),
        ("vcenter: {hosts: [../esx1]}", "vcenter.hosts.0"),
        ("vcenter: {hosts: [ca]}", "not ca or localhost"),
    ):
        path.write_text(text)
        with pytest.raises(PlanError, match=message):
            LabConfig.from_file(path)


def test_the_control_interface_needs_its_token(lab: Lab) -> None:
    wrong = LabControl(lab.endpoints.model_copy(update={"control_token": "guess"}))
    with pytest.raises(LabFailed, match="token"):
        wrong.counters()


def test_the_certificates_verify_by_every_name(lab: Lab) -> None:
    context = ssl.create_default_context(cafile=lab.endpoints.ca_file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1"):
        with (
            socket.create_connection(("127.0.0.1", lab.endpoints.vcenter_port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            assert tls.version() == "TLSv1.3"


def test_two_vms_of_one_name_need_two_folders() -> None:
    twins = (LabVm(name="a", disks=()), LabVm(name="a", disks=()))
    with pytest.raises(ValueError, match="same name"):
        LabVCenter(vms=twins)
    assert LabVCenter(vms=(twins[0], LabVm(name="a", folder="other", disks=())))


@pytest.mark.slow
def test_faults_of_the_file_are_set_when_the_lab_is_up(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    vm = {"name": "web01", "disks": [{"capacity": "1 MiB"}], "power": "off"}
    faults = [{"name": "backup_snapshot", "vm": "web01", "seconds": 600}, {"name": "one_boot", "times": 2}]
    file.write_text(json.dumps({"vcenter": {"vms": [vm]}, "faults": faults}))
    with up(LabConfig.from_file(file), tmp_path / "lab") as lab:
        assert lab.control.inventory().vms["web01"].snapshots == ("nightly backup",)
