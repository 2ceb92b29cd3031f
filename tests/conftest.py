"""Prefect absent, dead and alive, for the rooms that use it."""

import socket
from collections.abc import Iterator

import pytest


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
    """The address of a real server for the whole session, with its own home; starts in 12 to 17 s."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    with temporary_settings({PREFECT_HOME: home}), prefect_test_harness(server_startup_timeout=90):
        yield PREFECT_API_URL.value() or ""
