"""Starts and ends a whole lab."""

import fcntl
import multiprocessing
import os
import shutil
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from snapferry.lab.child import Child, LabFailed, OpenFile
from snapferry.lab.config import Endpoints, LabConfig
from snapferry.lab.control import LabControl

LOG_FILE = "lab.log"
_OURS = {"datastores", "objects", "hosts", "opennebula", "endpoints.json", LOG_FILE}
START_SECONDS = 120.0
# Many labs are forked from one process that has imported what they need, which costs 0.5 CPU seconds. It has a socket
# in TMPDIR, whose path can't have over 107 bytes.
_MANY = multiprocessing.get_context("forkserver")
_MANY.set_forkserver_preload(["snapferry.lab.daemon"])
_ONE = multiprocessing.get_context("spawn")


class Lab:
    """A running lab; `up` makes one. Ending it ends every process of it.

    Attributes:
        endpoints: where everything is, and the passwords.
        control: the lab's own control interface.
        folder: its files; they stay when the lab ends.
    """

    def __init__(self, child: Child, endpoints: Endpoints) -> None:
        self._child = child
        self.endpoints = endpoints
        self.control = LabControl(endpoints)
        self.folder = Path(endpoints.folder)

    @property
    def running(self) -> bool:
        return self._child.running

    def wait(self) -> None:
        """Waits, without a bound, until the lab ends by itself."""
        self._child.wait()

    def close(self) -> None:
        """Ends the lab. Repeatable."""
        self._child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def up(
    config: LabConfig,
    folder: Path,
    timeout_seconds: float = START_SECONDS,
    *,
    context: ForkServerContext | SpawnContext = _MANY,
) -> Lab:
    """Starts a lab on loopback and free ports.

    Args:
        folder: for its files; created, or empty, or one whose lab has ended: that one's files are removed.
            The endpoints file is `endpoints.json` (0600), the log `lab.log`.
        context: how the lab's process starts: soon, where there were others before, by default.

    A program that calls this begins with `if __name__ == "__main__":`, as for every process of `multiprocessing`.

    Raises:
        LabFailed: it didn't start, in time or at all; nothing of it runs any more.

    Example:
        with up(LabConfig(), tmp_path / "lab") as lab:
            print(lab.endpoints.vcenter_host)
    """
    # Where another user owns OpenNebula's files, he has to be able to pass through; what is secret is 0600 anyway.
    mode = 0o711 if config.opennebula.owner else 0o700
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    folder = folder.resolve()
    with _take_folder(folder) as log:
        folder.chmod(mode)
        child = Child(context, "control process", _run_lab, config, folder, OpenFile(log.fileno()))
    try:
        endpoints: Endpoints = child.wait_ready(timeout_seconds)
        return Lab(child, endpoints)
    except LabFailed as error:
        tail = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        raise LabFailed(f"The lab didn't start: {error.cause} {' '.join(tail)}", f"See {folder / LOG_FILE}.") from error


def _run_lab(parent: Connection, config: LabConfig, folder: Path, log: OpenFile) -> None:
    from snapferry.lab.daemon import run_lab  # not needed in the process that starts a lab

    run_lab(parent, config, folder, log)


def _take_folder(folder: Path) -> BinaryIO:
    """The log of a folder that is ours from now on, without the remains of an earlier lab.

    The log is locked through the open file that the lab's processes inherit, so the lock ends with the last of them.
    """
    found = {path.name for path in folder.iterdir()}
    strange = [name for name in found if name not in _OURS and not name.endswith((".pem", ".key"))]
    if strange or (found and LOG_FILE not in found):
        raise LabFailed(f"{folder} holds other things than a lab's.", "Give the lab a folder of its own.")
    fd = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    log = os.fdopen(fd, "wb")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        log.close()
        raise LabFailed(f"A lab is running in {folder}.", "End it, or give this one another folder.") from error
    for name in found - {LOG_FILE}:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    log.truncate(0)
    return log


def run(config: LabConfig, folder: Path) -> None:
    """Runs a lab until Ctrl-C or the lab's own end, and says what is where; for the command line."""
    try:
        with up(config, folder, context=_ONE) as lab:
            print(describe(lab.endpoints), flush=True)
            lab.wait()
    except KeyboardInterrupt:
        print("The lab ends.", flush=True)
        return
    raise LabFailed("The lab has ended by itself.", f"See {folder / LOG_FILE}.")


def describe(endpoints: Endpoints) -> str:
    """What is where, in a few lines without secrets."""
    return "\n".join(
        (
            f"vCenter      https://{endpoints.vcenter_host}:{endpoints.vcenter_port}  user {endpoints.vcenter_user}",
            f"OpenNebula   {endpoints.opennebula_endpoint}  user {endpoints.opennebula_user}",
            f"CA           {endpoints.ca_file}",
            f"Passwords    {endpoints.folder}/endpoints.json",
            "Ctrl-C ends the lab.",
        )
    )
