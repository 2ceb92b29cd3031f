"""Writes the fuzzers' corpus anew: `python -m tests.vmdk.make_corpus`."""

import random
import struct

from .builders import cowd, descriptor, sesparse, stream
from .fuzzing import CORPUS

MIB = 1 << 20


def main() -> None:
    """Small files of each format, sound ones and such as say something unusual."""
    rng = random.Random(1)
    sectors = {number: rng.randbytes(512) for number in (0, 1, 2, 4095, 4096, 8200)}
    pages = {0: rng.randbytes(4096), 1: "zero", 2: "unmapped", 9: rng.randbytes(4096), 70: rng.randbytes(4096)}
    grains = {number: bytes([number + 1]) * 65536 for number in (0, 3, 12)}
    cowds = {
        "odd": cowd(5 * MIB + 512, sectors, rng),
        "one-table": cowd(MIB, {5: sectors[0], 6: sectors[1]}, rng),
        "empty": cowd(MIB, {}, rng),
        "unclean": with_number(cowd(MIB, {}, rng), 1648, 1),
        "entry-1": with_number(cowd(MIB, {0: sectors[0]}, rng), 5 * 512 + 8, 1),
    }
    sesparses = {
        "odd": sesparse(17 * MIB + 512, pages, rng, directory=8),
        "reserved1": sesparse(MIB, pages, rng, reserved1=0x200, directory=8),
        "empty": sesparse(MIB, {}, rng, directory=8),
        "in-use": with_number(sesparse(MIB, {}, rng, directory=8), 512 + 24, 1),
    }
    streams = {
        "odd": stream(MIB + 512, grains | {16: b"e" * 65536}, overhead=21),
        "unsized": stream(40 * MIB, grains, overhead=21, sized=False),
        "stored": stream(MIB, {2: rng.randbytes(40000) + bytes(25536)}, overhead=21),
        "empty": stream(MIB, {}, overhead=21),
    }
    texts = {
        "flat": descriptor(65536, "vmfs", "VMFS", "b.vmdk").text(),
        "delta": descriptor(65536, "vmfs", "FLAT", "b.vmdk", cid=2, parent=(1, "/vmfs/volumes/x/web01.vmdk")).text(),
        "circle": descriptor(65536, "vmfs", "FLAT", "b.vmdk", parent=(1, "./web01-000001.vmdk")).text(),
        "child": descriptor(65536, "seSparse", "SESPARSE", "b.vmdk", parent=(1, "web01.vmdk")).text(),
        "parts": 'CID=1\ncreateType="x"\nRW 8 FLAT "b.vmdk" 120\nRW 8 ZERO\nRDONLY 1 FLAT "web01-flat.vmdk" 0\n',
        "encoded": 'encoding="windows-1252"\nCID=1\ncreateType="x"\nRW 8 VMFS "web01-flat.vmdk"\nddb.uuid = "60 00"\n',
    }
    files = {"cowd": cowds, "sesparse": sesparses, "stream": streams}
    files["descriptor"] = {name: bytearray(text.encode()) for name, text in texts.items()}
    for parser, made in files.items():
        (CORPUS / parser).mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            assert len(data) < 64 << 10, f"{parser}/{name} has {len(data)} bytes"
            (CORPUS / parser / name).write_bytes(data)


def with_number(data: bytearray, at: int, number: int) -> bytearray:
    """The same with a number of 32 bits changed."""
    struct.pack_into("<I", data, at, number)
    return data


if __name__ == "__main__":
    main()
