"""A host that speaks NFC, for measurements: `python -m benchmarks.nfc_host FOLDER BYTES`; ends when stdin does."""

import json
import ssl
import sys
from pathlib import Path

import numpy as np

from snapferry.lab.ca import CertificateAuthority
from tests.readers.nfc_host import Behaviour, Certificate, Host


class AnyTicket(set[str]):
    """Every ticket is one of the host's own."""

    def __contains__(self, _: object) -> bool:
        return True


def main() -> None:
    folder, capacity_bytes = Path(sys.argv[1]), int(sys.argv[2])
    issued = CertificateAuthority(folder).issue("localhost")
    pem = folder / "host.pem"
    text = issued.certificate_file.read_text()
    pem.write_text(text + issued.key_file.read_text())
    disk = np.random.default_rng(1).bytes(capacity_bytes)
    host = Host(
        disk, Certificate(pem, ssl.PEM_cert_to_DER_cert(text)), Behaviour(shuffle=False, most_session_bytes=8 << 20)
    )
    host.tickets = AnyTicket()
    print(json.dumps({"port": host.port, "thumbprint": issued.sha1_thumbprint}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
