"""The demo's site: a Prefect server, a worker and the lab, each a process on loopback and a free port."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event

from snapferry.cli.demo.processes import DemoFailed, Processes, answers
from snapferry.lab import Endpoints, LabConfig

SERVER_SECONDS = 90
LAB_SECONDS = 120
_OURS = ("PREFECT_", "SNAPFERRY_")


def environment(folder: Path) -> dict[str, str]:
    """This process's environment without what the user set for Prefect and Snapferry, with the demo's own."""
    home = folder / "prefect"
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DO_NOT_TRACK": "1",
        "TMPDIR": str(folder / "tmp"),  # Prefect's folders below /tmp have fixed names: another user's may be there
        "SNAPFERRY_STATE": str(folder / "state"),
    }


def make_home(home: Path) -> None:
    """Makes a server's folder. Where `make install` left an empty database, a server needn't spend 15 s on one."""
    home.mkdir(mode=0o700, exist_ok=True)
    for file in (Path(sys.prefix) / "prefect").glob("prefect.db*"):
        shutil.copyfile(file, home / file.name)


def free_port() -> int:
    """A TCP port on loopback that was free just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Site:
    """Starts the parts; each is waited for where it is needed, so that they start side by side.

    Args:
        folder: the demo's folder, empty.
        processes: what runs them.
        api_url: where the Prefect server shall answer.
    """

    def __init__(self, folder: Path, processes: Processes, api_url: str) -> None:
        self.folder = folder
        self.api_url = api_url
        self.ui_url = api_url.removesuffix("/api")
        self._processes = processes
        self._endpoints = folder / "lab" / "endpoints.json"
        self._server: subprocess.Popen[bytes] | None = None
        self._lab: subprocess.Popen[bytes] | None = None

    def start(self, config: LabConfig) -> None:
        """Starts server and lab."""
        (self.folder / "tmp").mkdir(mode=0o700)
        make_home(self.folder / "prefect")
        file = self.folder / "lab.yaml"
        file.write_text(config.model_dump_json(indent=2), encoding="utf-8")  # JSON is YAML
        port = self.ui_url.rsplit(":", 1)[1]
        self._server = self._processes.start(
            "server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port
        )
        self._lab = self._processes.start("lab", "snapferry.cli", "lab", "up", "--file", str(file), "--folder", "lab")

    def wait_lab(self) -> Endpoints:
        """Where the lab's parts are."""
        assert self._lab is not None
        self._processes.wait_for("lab", self._lab, self._lab_up, LAB_SECONDS)
        return Endpoints.model_validate_json(self._endpoints.read_bytes())

    def wait_server(self) -> None:
        """Returns once the Prefect server answers."""
        assert self._server is not None
        self._processes.wait_for("server", self._server, lambda: answers(f"{self.api_url}/health"), SERVER_SECONDS)

    def start_worker(self, pool: str) -> None:
        """Starts a worker; runs wait until it asks for them."""
        self._processes.start("worker", "prefect", "worker", "start", "--pool", pool, "--type", "process")

    @property
    def one_ended(self) -> Event:
        """Set where server, lab or worker ended by itself."""
        return self._processes.one_ended

    def check(self) -> None:
        """Names a part that ended.

        Raises:
            DemoFailed: one did.
        """
        for name in self._processes.ended:
            raise DemoFailed(f"The {name} ended.", f"See {self.folder / name}.log.")

    def _lab_up(self) -> bool:
        return self._endpoints.exists() and self._endpoints.read_bytes().endswith(b"\n")
