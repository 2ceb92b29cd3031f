"""Prefect absent, dead and alive, for the rooms that use it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture which is dear to start run in the same one of pytest-xdist's processes.

    Prefect's server takes 10 s to start: what needs it is slow.
    """
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "prefect_api" in names:
            item.add_marker(pytest.mark.slow)
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("prefect"))
        elif "lab" in names and "engine" not in item.path.parts:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(Path(__file__).parent).parts[0]))


def pytest_configure() -> None:
    """What is started in the background ignores Ctrl-C, and so do its children; but some tests interrupt theirs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The seed, and what the long runs hit: see `tests/torture/conftest.py`."""
    hit: dict[str, dict[str, Counter[str]]] = {}
    for report in [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]:
        for name, value in report.user_properties if report.when == "call" else ():
            if name.startswith("hit "):
                hit.setdefault(name, {}).setdefault(value[0], Counter())[value[1]] += 1
    for name, groups in sorted(hit.items()):
        total = sum(points.total() for points in groups.values())
        terminalreporter.section(f"{name}, seed {os.environ.get('SEED', '1')}: {total}")
        for group, points in sorted(groups.items()):
            terminalreporter.line(f"{points.total():4} {group}")
            for point, count in points.most_common():
                terminalreporter.line(f"     {count:4} {point}")


@pytest.fixture(scope="session")
def seed() -> int:
    """What drawn tests draw from: `make torture SEED=n`."""
    return int(os.environ.get("SEED", "1"))


@pytest.fixture
def without_prefect() -> Iterator[None]:
    """No server is configured."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


@pytest.fixture
def dead_prefect() -> Iterator[str]:
    """The address of a server that is down."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: address}):
            yield address


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server with its UI for the whole session, with its own home; starts in about 10 s.

    Its scheduler is off: no nightly run shall start because tests run at night.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from snapferry.cli.demo.site import make_home

    home = tmp_path_factory.mktemp("prefect")
    make_home(home)
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    ours = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=clean | ours, cwd=home, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: answers(f"{api}/health", server), seconds=90, what=f"Prefect's server, see {log.name}")
            with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: home}):
                yield api
        finally:
            end_session_of(server)


def free_port() -> int:
    """A TCP port on loopback that was free just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(url: str, server: "subprocess.Popen[bytes]") -> bool:
    """Whether a server on loopback that still runs answers with 200."""
    assert server.poll() is None, f"the server ended with status {server.returncode}"
    try:
        with urlopen(url, timeout=2) as reply:  # noqa: S310 - our own server
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns once the condition holds, which is looked at ten times a second; fails when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {seconds:.0f} s"
        time.sleep(0.1)


def end_session_of(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process that leads a session, and all that it started there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
