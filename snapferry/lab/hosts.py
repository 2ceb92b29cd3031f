"""The simulated ESXi hosts as the control process sees them: one process each."""

import os
from pathlib import Path

from snapferry.lab.ca import CertificateAuthority
from snapferry.lab.child import Child
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
        self.name = name
        certificate = authority.issue(name)
        self.thumbprint = certificate.sha1_thumbprint
        """SHA-1 of its certificate, `AA:BB:…`."""
        self.nfc_port = 0
        self.https_port = 0
        # Relative to the working directory, which is the lab's folder: a socket's path can't have over 107 bytes.
        self._socket = Path("hosts") / f"{number}.sock"
        self._child = Child(
            "snapferry.lab.host",
            [
                *("--name", name, "--folder", str(folder), "--socket", str(self._socket)),
                *("--cert", str(certificate.certificate_file), "--key", str(certificate.key_file)),
                *("--seed", str(seed)),
                *(["--nfc-fastlz"] if nfc_fastlz else []),
            ],
            cwd=Path.cwd(),
        )

    def wait_ready(self) -> None:
        """Raises LabFailed."""
        ports = self._child.wait_ready(START_SECONDS)
        self.nfc_port, self.https_port = int(ports["nfc_port"]), int(ports["https_port"])
        self.client = HostClient(self._socket)

    def end(self) -> None:
        self._child.end()

    @staticmethod
    def prepare(folder: Path) -> None:
        """Makes the folder for the sockets and goes to the lab's folder; once a process."""
        (folder / "hosts").mkdir(mode=0o700)
        os.chdir(folder)
