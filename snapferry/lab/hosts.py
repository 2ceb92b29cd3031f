"""The simulated ESXi hosts as the control process sees them: one process each."""

import multiprocessing
import threading
from pathlib import Path

from snapferry.lab.ca import CertificateAuthority
from snapferry.lab.child import Child
from snapferry.lab.host.process import HostOptions, HostPorts, run_host
from snapferry.lab.host.rpc import HostClient

START_SECONDS = 30.0


class HostProcess:
    """One host. Starting takes two steps, so that several hosts can start side by side."""

    def __init__(
        self,
        name: str,
        number: int,
        folder: Path,
        authority: CertificateAuthority,
        seed: int,
        *,
        nfc_fastlz: bool,
    ) -> None:
        assert threading.active_count() == 1, "a fork takes the locks of other threads along, not who would open them"
        self.name = name
        certificate = authority.issue(name)
        self.thumbprint = certificate.sha1_thumbprint
        """SHA-1 of its certificate, `AA:BB:…`."""
        self.nfc_port = 0
        self.https_port = 0
        # Relative to the working directory, which is the lab's folder: a socket's path can't have over 107 bytes.
        socket = Path("hosts") / f"{number}.sock"
        files = certificate.certificate_file, certificate.key_file
        self._options = HostOptions(folder, socket, *files, seed, nfc_fastlz)
        # All that a host needs is imported here already, and it costs 0.3 CPU seconds.
        self._child = Child(multiprocessing.get_context("fork"), f"host {name}", run_host, self._options)

    def wait_ready(self) -> None:
        """Raises LabFailed."""
        ports: HostPorts = self._child.wait_ready(START_SECONDS)
        self.nfc_port, self.https_port = ports
        self.client = HostClient(self._options.unix_socket)

    def end(self) -> None:
        self._child.end()
