"""Runs one simulated host; `python -m snapferry.lab.host --help`."""

import argparse
import json
import sys
from pathlib import Path

from snapferry.lab.host.folder import FolderServer
from snapferry.lab.host.nfc import NfcServer
from snapferry.lab.host.rpc import serve
from snapferry.lab.host.service import HostService


def main() -> None:
    """Starts the servers, prints their ports as one JSON line, and ends when stdin does: the parent holds it."""
    parser = argparse.ArgumentParser(prog="snapferry.lab.host", description="Runs one simulated ESXi host.")
    parser.add_argument("--name", required=True, help="the host's name")
    parser.add_argument("--folder", required=True, type=Path, help="the lab's folder, with datastores/ in it")
    parser.add_argument("--socket", required=True, type=Path, help="Unix socket for the control process")
    parser.add_argument("--cert", required=True, type=Path, help="the host's certificate (PEM)")
    parser.add_argument("--key", required=True, type=Path, help="its private key (PEM)")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--leaf-busy-seconds", type=float, default=0.3, help="how long a leaf is busy after power-off")
    parser.add_argument("--nfc-memory-bytes", type=int, default=96_000_000, help="NFC buffer memory of the host")
    parser.add_argument("--nfc-fastlz", action="store_true", help="compress what NFC sends, where it is asked for")
    options = parser.parse_args()
    service = HostService(options.folder, options.seed, options.leaf_busy_seconds)
    nfc = NfcServer(service, options.cert, options.key, options.nfc_memory_bytes, fastlz=options.nfc_fastlz)
    https = FolderServer(service, options.cert, options.key)
    rpc = serve(service, options.socket)
    print(json.dumps({"name": options.name, "nfc_port": nfc.port, "https_port": https.port}), flush=True)
    try:
        sys.stdin.buffer.read()
    except KeyboardInterrupt:
        pass  # Ctrl-C in a terminal reaches the whole group: an end like any other
    finally:
        rpc.close()
        nfc.close()
        https.close()
        service.stop()


if __name__ == "__main__":
    main()
