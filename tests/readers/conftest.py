"""Hosts that speak NFC, and readers of them, for one test."""

from collections.abc import Callable, Iterator

import pytest

from snapferry.readers import NfcReader

from .nfc_host import Behaviour, Certificate, Host, make_certificate


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Certificate]:
    """The host's certificate, and somebody else's."""
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificate(folder, "esx1"), make_certificate(folder, "other")


StartHost = Callable[..., Host]
MakeReader = Callable[..., NfcReader]


@pytest.fixture
def start_host(certificates: tuple[Certificate, Certificate]) -> Iterator[StartHost]:
    """Starts hosts with a disk and a behaviour; they end with the test."""
    hosts: list[Host] = []

    def start(disk: bytes, **behaviour: object) -> Host:
        hosts.append(Host(disk, certificates[0], Behaviour(**behaviour)))  # type: ignore[arg-type]
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


@pytest.fixture
def make_reader() -> Iterator[MakeReader]:
    """Makes readers for a host, with short waits; they are closed with the test."""
    readers: list[NfcReader] = []

    def make(host: Host, **options: object) -> NfcReader:
        chosen = {"backoff_seconds": (0.01, 0.02, 0.04), "timeout_seconds": 5.0, "request_bytes": 256 << 10} | options
        readers.append(NfcReader(host.ticket, "[san1] web01/web01.vmdk", len(host.disk), **chosen))  # type: ignore[arg-type]
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()
