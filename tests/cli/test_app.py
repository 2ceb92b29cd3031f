"""Help that is quick and says all; errors that say what to do; exit codes that mean something."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from snapferry.cli.app import app

COMMANDS = [
    *("assess", "plan", "deploy", "presync", "migrate", "cutover", "approve", "status", "abandon", "doctor", "demo"),
    "lab",
]
HEAVY = ("prefect", "pyVmomi", "pyone", "numpy", "httpx", "yaml", "snapferry.lab", "snapferry.vsphere")


def test_the_command_line_loads_no_library_that_a_command_alone_needs() -> None:
    program = "import sys, snapferry.cli; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "snapferry.cli.app" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_help_takes_less_than_half_a_second_of_this_machine() -> None:
    command = [str(Path(sys.executable).with_name("snapferry")), "--help"]

    def seconds() -> float:
        """Processor time, so that a busy machine makes no difference."""
        before = os.times()
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    began = time.monotonic()
    best = min(seconds() for _ in range(3))
    assert best < 0.5, f"{best:.2f} s of processor time, {time.monotonic() - began:.2f} s for three runs"


def test_help_names_every_command_and_every_exit_code(snapferry: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = snapferry("--help")
    assert code == 0
    assert all(f" {name} " in out for name in COMMANDS)
    assert all(f"{number} " in out for number in (0, 1, 2, 3, 5, 130))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_with_an_example(name: str, snapferry: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = snapferry(name, *(["up"] if name == "lab" else []), "--help")
    assert code == 0
    assert f"Example: snapferry {name}" in " ".join(out.split())


def test_no_command_takes_a_password() -> None:
    import typer.main

    def options(command: object) -> set[str]:
        own = {option for one in getattr(command, "params", []) for option in one.opts}
        return own.union(*(options(one) for one in getattr(command, "commands", {}).values()))

    found = options(typer.main.get_command(app))
    assert "--json" in found
    assert not [one for one in found if "pass" in one or "token" in one or "secret" in one]


def test_a_mistake_in_a_plan_is_told_with_file_line_and_field_and_no_traceback(
    tmp_path: Path, snapferry: Callable[..., tuple[int, str, str]]
) -> None:
    plan = tmp_path / "web01.yaml"
    plan.write_text("vm: web01\nimage_datastore: default\nmax_rounds: 1\ndowntime: 5m\n")
    code, out, err = snapferry("deploy", str(plan))
    assert code == 2
    assert f"{plan}:3: max_rounds" in err
    assert f"{plan}:4: downtime: there is no such field" in err
    assert "Next:" in err
    assert "Traceback" not in out + err


def test_debug_shows_the_traceback(tmp_path: Path, snapferry: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = snapferry("--debug", "deploy", str(tmp_path / "gone.yaml"))
    assert code == 2
    assert "Traceback" in err
    assert "can't be read" in err


def test_an_unknown_option_ends_with_2(snapferry: Callable[..., tuple[int, str, str]]) -> None:
    assert snapferry("migrate", "web01", "--fast")[0] == 2


@pytest.mark.usefixtures("without_prefect")
@pytest.mark.parametrize(
    "arguments", [("migrate", "web01"), ("presync", "web01"), ("cutover", "web01"), ("approve",), ("abandon", "web01")]
)
def test_without_a_prefect_server_each_command_says_how_to_name_one(
    arguments: tuple[str, ...], snapferry: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = snapferry(*arguments)
    assert code == 3
    assert "No Prefect server is configured" in err
    assert "PREFECT_API_URL" in err


def test_a_dead_prefect_server_is_named(dead_prefect: str, snapferry: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = snapferry("migrate", "web01")
    assert code == 3
    assert dead_prefect in err
    assert "Traceback" not in err


class Stranger(BaseHTTPRequestHandler):
    """A server that knows nobody's password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Requests aren't logged."""


@pytest.mark.parametrize("command", ["migrate", "assess", "doctor"])
def test_a_wrong_prefect_password_is_named(command: str, snapferry: Callable[..., tuple[int, str, str]]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
            code, out, err = snapferry(command, "web01")
        server.shutdown()
    assert code == 3
    assert "PREFECT_API_AUTH_STRING" in out + err
    assert "Traceback" not in err


@pytest.mark.usefixtures("without_prefect")
def test_without_a_login_the_environment_variables_are_named(snapferry: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = snapferry("assess", "web01")
    assert code == 3
    assert "SNAPFERRY_VCENTER_HOST" in err


@pytest.mark.usefixtures("without_prefect")
def test_doctor_says_everything_that_is_amiss_at_once(snapferry: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = snapferry("doctor", "--json")
    findings = json.loads(out)
    assert code == 3
    assert [one["ok"] for one in findings] == [True, False, False, False]
    assert all(one["advice"] for one in findings if not one["ok"])
    assert "prefect 3." in findings[0]["what"]


@pytest.mark.slow
def test_doctor_says_once_that_prefect_is_down(
    dead_prefect: str, snapferry: Callable[..., tuple[int, str, str]]
) -> None:
    """Though both blocks are asked of it, too."""
    code, out, _ = snapferry("doctor", "--json")
    findings = json.loads(out)
    assert code == 3
    assert [one["ok"] for one in findings] == [True, False]
    assert dead_prefect in findings[1]["what"]
