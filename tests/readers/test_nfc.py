"""What the NFC reader promises, against a host that behaves and one that doesn't."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapferry.errors import SnapferryError, SourceError, Stopped
from snapferry.readers import (
    DiskInUse,
    DiskNotOpened,
    NfcAllocationError,
    NfcError,
    NfcProtocolError,
    NfcReader,
    ThumbprintMismatch,
    TicketRefused,
)
from snapferry.seams import Block
from snapferry.transfer import BadExtents, Extents

KIB, MIB = 1 << 10, 1 << 20
StartHost = Callable[..., Any]
MakeReader = Callable[..., NfcReader]


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def gather(blocks: Iterable[Block], disk: bytes) -> Extents:
    """Compares each block with the disk while its data is valid; which bytes came, each once."""
    runs = []
    for block in blocks:
        assert block.data is not None and block.data == disk[block.offset : block.offset + block.length]
        runs.append((block.offset, block.length))
    came = Extents.from_pairs(runs)
    assert came.total_bytes == sum(length for _, length in runs), "a byte came twice"
    return came


def test_every_byte_of_a_disk_with_an_odd_end_comes_exactly_once(
    start_host: StartHost, make_reader: MakeReader
) -> None:
    disk = noise(3 * MIB + 512)
    host = start_host(disk)
    assert gather(make_reader(host).read(Extents.whole(len(disk)), threading.Event()), disk) == Extents.whole(len(disk))
    assert set(host.paths) == {"[san1] web01/web01.vmdk"}


def test_only_the_extents_are_asked_for(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(2 * MIB + 1536)
    host = start_host(disk)
    extents = Extents.from_pairs([(0, 512), (64 * KIB, 300 * KIB), (MIB, 64 * KIB), (2 * MIB, 1536)])
    assert gather(make_reader(host).read(extents, threading.Event()), disk) == extents
    assert Extents.from_pairs(host.requests) == extents
    assert sum(length for _, length in host.requests) == extents.total_bytes


def test_no_extents_need_no_connection(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(MIB))
    assert list(make_reader(host).read(Extents.empty(), threading.Event())) == []
    assert not host.tickets


def test_requests_in_flight_are_told_apart_by_their_number(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(4 * MIB)
    host = start_host(disk, gather=4, fragment_bytes=16 * KIB)
    reader = make_reader(host, connections=1)
    assert gather(reader.read(Extents.whole(len(disk)), threading.Event()), disk) == Extents.whole(len(disk))
    assert host.most_in_flight == 4


def test_large_buffers_are_asked_for_and_what_is_granted_is_obeyed(
    start_host: StartHost, make_reader: MakeReader
) -> None:
    disk = noise(4 * MIB)
    host = start_host(disk, grant=(64 * KIB, 2))
    reader = make_reader(host, connections=1, request_bytes=2 * MIB)
    gather(reader.read(Extents.whole(len(disk)), threading.Event()), disk)
    assert host.asked == [(2 * MIB, 4)]
    assert host.most_in_flight <= 2


def test_each_connection_has_its_own_ticket_and_ends_politely(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(8 * MIB)
    host = start_host(disk)
    gather(make_reader(host, connections=3).read(Extents.whole(len(disk)), threading.Event()), disk)
    assert sorted(host.used) == sorted(host.tickets) and len(host.used) == 3
    host.wait_until(lambda one: one.open_sessions == 0)
    assert host.goodbyes == 3


def test_a_reader_reads_again_after_a_read(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(MIB)
    reader = make_reader(start_host(disk))
    for _ in range(2):
        assert gather(reader.read(Extents.whole(MIB), threading.Event()), disk) == Extents.whole(MIB)


def test_a_cut_connection_is_taken_up_where_it_broke(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(MIB)
    host = start_host(disk, cuts=[10 * 64 * KIB], shuffle=False)
    reader = make_reader(host, connections=1, in_flight=1, request_bytes=MIB)
    assert gather(reader.read(Extents.whole(MIB), threading.Event()), disk) == Extents.whole(MIB)
    assert host.requests == [(0, MIB), (640 * KIB, 384 * KIB)], "what had come was asked for again"


def test_a_cut_amid_fragments_out_of_order_asks_for_the_gaps(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(MIB)
    host = start_host(disk, cuts=[8 * 64 * KIB])
    reader = make_reader(host, connections=1, in_flight=1, request_bytes=MIB)
    assert gather(reader.read(Extents.whole(MIB), threading.Event()), disk) == Extents.whole(MIB)
    again = Extents.from_pairs(host.requests[1:])
    assert again.total_bytes == 8 * 64 * KIB and len(again) > 1


def test_connections_that_are_cut_again_and_again_lose_nothing(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(48 * MIB + 512)  # the cuts together take less than half of it: all three connections have to come back
    host = start_host(disk, cuts=[random.Random(5).randrange(2 * MIB) for _ in range(9)])
    reader = make_reader(host, backoff_seconds=[0.01] * 12)
    assert gather(reader.read(Extents.whole(len(disk)), threading.Event()), disk) == Extents.whole(len(disk))
    assert len(host.used) >= 12


def test_a_host_short_of_memory_is_asked_for_fewer_connections(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(8 * MIB)
    host = start_host(disk, most_sessions=1)
    assert gather(make_reader(host).read(Extents.whole(len(disk)), threading.Event()), disk) == Extents.whole(len(disk))
    assert host.most_open == 1


def test_a_host_without_large_buffers_is_asked_for_its_defaults(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(2 * MIB)
    host = start_host(disk, most_session_bytes=256 * KIB)
    reader = make_reader(host, connections=1, request_bytes=MIB)
    assert gather(reader.read(Extents.whole(len(disk)), threading.Event()), disk) == Extents.whole(len(disk))
    assert host.asked == [(MIB, 4), (0, 0)]


def test_a_host_without_any_memory_is_named_after_a_bounded_number_of_attempts(
    start_host: StartHost, make_reader: MakeReader
) -> None:
    host = start_host(noise(MIB), most_session_bytes=-1)
    with pytest.raises(NfcAllocationError, match="memory"):
        list(make_reader(host).read(Extents.whole(MIB), threading.Event()))
    assert 4 <= len(host.used) <= 7


def test_a_refused_ticket_is_renewed(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(MIB)
    host = start_host(disk, refused_tickets=2)
    assert gather(make_reader(host, connections=1).read(Extents.whole(MIB), threading.Event()), disk)
    assert len(host.used) == 3


def test_tickets_that_are_always_refused_are_named(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(MIB), refused_tickets=99)
    with pytest.raises(TicketRefused, match="530"):
        list(make_reader(host).read(Extents.whole(MIB), threading.Event()))


def test_a_vcenter_that_stays_away_is_named(start_host: StartHost) -> None:
    def none() -> Any:
        raise SourceError("vCenter is away.")

    reader = NfcReader(none, "[san1] a/a.vmdk", MIB, backoff_seconds=(0.01,))
    with pytest.raises(SourceError, match="away"):
        list(reader.read(Extents.whole(MIB), threading.Event()))


def test_a_host_with_another_certificate_never_sees_the_ticket(
    start_host: StartHost, make_reader: MakeReader, certificates: tuple[Any, Any]
) -> None:
    host = start_host(noise(MIB))
    expected = certificates[1].thumbprint("sha1")
    reader = NfcReader(lambda: host.ticket()._replace(ssl_thumbprint=expected), "[san1] a/a.vmdk", MIB)
    with pytest.raises(ThumbprintMismatch, match="sha1"):
        list(reader.read(Extents.whole(MIB), threading.Event()))
    assert host.used == []


def test_another_certificate_on_the_second_layer_is_refused(
    start_host: StartHost, make_reader: MakeReader, certificates: tuple[Any, Any]
) -> None:
    host = start_host(noise(MIB), second_certificate=certificates[1])
    with pytest.raises(ThumbprintMismatch, match="sha256"):
        list(make_reader(host).read(Extents.whole(MIB), threading.Event()))
    assert host.paths == []


def test_plain_nfc_is_read_where_it_is_asked_for(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(3 * MIB)
    host = start_host(disk)
    assert gather(make_reader(host, plain=True).read(Extents.whole(3 * MIB), threading.Event()), disk)


def test_a_leaf_that_stays_busy_for_a_moment_is_waited_for(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(MIB)
    host = start_host(disk, open_errors=[(13, "Failed to lock the file")] * 2)
    assert gather(make_reader(host, connections=1).read(Extents.whole(MIB), threading.Event()), disk)


def test_a_disk_in_use_is_named(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(MIB), open_errors=[(13, "Failed to lock the file")] * 99)
    with pytest.raises(DiskInUse, match=r"in use.*snapshot"):
        list(make_reader(host).read(Extents.whole(MIB), threading.Event()))


def test_a_disk_that_is_gone_is_named_at_once(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(MIB), open_errors=[(13, "There is no such file")] * 99)
    with pytest.raises(DiskNotOpened, match="no such file"):
        list(make_reader(host, connections=1).read(Extents.whole(MIB), threading.Event()))
    assert len(host.used) == 1


@pytest.mark.slow
def test_a_read_error_is_tried_again_and_then_named(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(MIB)
    host = start_host(disk, read_errors=[(7, "Read failed")])
    assert gather(make_reader(host, connections=1).read(Extents.whole(MIB), threading.Event()), disk)
    host.behaviour.read_errors = [(7, "Read failed")] * 99
    with pytest.raises(NfcError, match="NFC error 7: Read failed"):
        list(make_reader(host, connections=1).read(Extents.whole(MIB), threading.Event()))


def spoil(**fields: int) -> Callable[[Any], None]:
    """Falsifies every fragment's fields by these amounts."""

    def change(one: Any) -> None:
        for name, amount in fields.items():
            setattr(one, name, getattr(one, name) + amount)

    return change


def same_place(one: Any) -> None:
    one.start = 0


@pytest.mark.parametrize(
    "falsify",
    [
        pytest.param(spoil(magic=1), id="wrong magic"),
        pytest.param(spoil(kind=2), id="wrong type"),
        pytest.param(spoil(size=-4), id="wrong size"),
        pytest.param(spoil(operation=1000), id="unknown request"),
        pytest.param(spoil(opcode=2 << 32), id="compressed unasked"),
        pytest.param(spoil(offset=512), id="another offset"),
        pytest.param(spoil(total=512), id="another request's length"),
        pytest.param(spoil(start=200 * KIB), id="beyond the request"),
        pytest.param(spoil(length=1 << 30, on_wire=1 << 30), id="longer than the request"),
        pytest.param(spoil(on_wire=1), id="another length on the wire"),
        pytest.param(spoil(length=-64 * KIB, on_wire=-64 * KIB), id="empty"),
        pytest.param(same_place, id="overlapping fragments"),
    ],
)
def test_what_the_protocol_doesnt_allow_is_named_at_once(
    start_host: StartHost, make_reader: MakeReader, falsify: Callable[[Any], None]
) -> None:
    host = start_host(noise(MIB), spoil=falsify, shuffle=False)
    with pytest.raises(NfcProtocolError):
        list(make_reader(host).read(Extents.whole(MIB), threading.Event()))


def compressible(length: int) -> bytes:
    """Zeros, text and noise by turns, so that fragments come in both ways."""
    parts = (bytes(150 * KIB), b"Compression is for slow links. " * 5000, noise(130 * KIB))
    return b"".join(itertools.islice(itertools.cycle(parts), 3 * length // (300 * KIB) + 3))[:length]


def test_what_a_host_compresses_comes_whole_over_cut_connections(
    start_host: StartHost, make_reader: MakeReader
) -> None:
    disk = compressible(3 * MIB + 512)
    host = start_host(disk, fastlz=True, cuts=[20 * KIB, 300 * KIB])
    reader = make_reader(host, compress=True, connections=2)
    assert gather(reader.read(Extents.whole(len(disk)), threading.Event()), disk) == Extents.whole(len(disk))
    assert len(host.used) >= 3 and host.sent_bytes < 0.5 * len(disk)


def test_a_host_that_doesnt_compress_is_read_all_the_same(start_host: StartHost, make_reader: MakeReader) -> None:
    disk = noise(MIB)
    host = start_host(disk, fastlz=True)
    assert gather(make_reader(host, compress=True).read(Extents.whole(MIB), threading.Event()), disk)
    assert host.sent_bytes >= MIB


def damage(one: Any) -> None:
    one.data = memoryview(b"\xff" + bytes(one.data[1:]))


@pytest.mark.parametrize(
    "falsify",
    [
        pytest.param(damage, id="damaged stream"),
        pytest.param(spoil(length=-512), id="longer than its fragment"),
        pytest.param(spoil(on_wire=1 << 20), id="longer on the wire than it can be"),
        pytest.param(spoil(opcode=1 << 32), id="another compression"),
    ],
)
def test_a_compressed_fragment_that_cant_be_is_named_at_once(
    start_host: StartHost, make_reader: MakeReader, falsify: Callable[[Any], None]
) -> None:
    host = start_host(bytes(MIB), fastlz=True, spoil=falsify, shuffle=False)
    with pytest.raises(NfcProtocolError):
        list(make_reader(host, compress=True).read(Extents.whole(MIB), threading.Event()))


def test_an_endless_greeting_is_named(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(MIB), greeting=b"2" * 5000)
    with pytest.raises(NfcProtocolError, match="without an end"):
        list(make_reader(host).read(Extents.whole(MIB), threading.Event()))


@pytest.mark.parametrize("stage", ["greeting", "ticket", "classic", "session", "open", "read", "trickle"])
def test_silence_ends_in_a_named_error(start_host: StartHost, make_reader: MakeReader, stage: str) -> None:
    host = start_host(noise(MIB), silent_at=stage)
    reader = make_reader(host, timeout_seconds=0.2, backoff_seconds=(0.01,))
    began = time.monotonic()
    with pytest.raises(NfcError, match=r"didn't answer within 0\.2 seconds"):
        list(reader.read(Extents.whole(MIB), threading.Event()))
    assert time.monotonic() - began < 3


def test_a_host_that_isnt_there_is_named(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(MIB))
    host.close()
    with pytest.raises(NfcError, match=r"can't be reached.*902"):
        list(make_reader(host).read(Extents.whole(MIB), threading.Event()))


@pytest.mark.parametrize("stage", ["greeting", "session", "read"])
def test_a_read_stops_within_a_second_of_silence(start_host: StartHost, make_reader: MakeReader, stage: str) -> None:
    host, stop = start_host(noise(MIB), silent_at=stage), threading.Event()
    before = set(threading.enumerate())
    blocks = make_reader(host, timeout_seconds=30).read(Extents.whole(MIB), stop)
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        next(iter(blocks))
    assert time.monotonic() - began < 1.3
    ours = [one for one in set(threading.enumerate()) - before if one.name.startswith("nfc-")]
    for thread in ours:
        thread.join(5)
        assert not thread.is_alive(), "a stopped read leaves a thread behind"


def test_leaving_a_read_early_ends_its_connections(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(32 * MIB))
    blocks = make_reader(host).read(Extents.whole(32 * MIB), threading.Event())
    next(iter(blocks))
    blocks.close()  # type: ignore[attr-defined]
    host.wait_until(lambda one: one.open_sessions == 0)


def test_a_closed_reader_stops_its_read(start_host: StartHost, make_reader: MakeReader) -> None:
    reader = make_reader(start_host(noise(MIB), silent_at="read"))
    threading.Timer(0.3, reader.close).start()
    with pytest.raises(SnapferryError):
        list(reader.read(Extents.whole(MIB), threading.Event()))


@pytest.mark.parametrize("run", [(100, 512), (512, 100), (MIB, 512)])
def test_what_isnt_whole_sectors_of_the_disk_is_refused(
    start_host: StartHost, make_reader: MakeReader, run: tuple[int, int]
) -> None:
    with pytest.raises(BadExtents):
        list(make_reader(start_host(noise(MIB))).read(Extents.from_pairs([run]), threading.Event()))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.tuples(st.integers(0, 1999), st.integers(1, 400)), max_size=12),
    request_sectors=st.integers(1, 600),
    fragment_sectors=st.integers(1, 129),
    cuts=st.lists(st.integers(0, 300_000), max_size=3),
)
def test_any_extents_come_whole_however_they_are_cut_up(
    start_host: StartHost,
    make_reader: MakeReader,
    runs: list[tuple[int, int]],
    request_sectors: int,
    fragment_sectors: int,
    cuts: list[int],
) -> None:
    disk = noise(2000 * 512)
    extents = Extents.from_pairs((start * 512, min(length, 2000 - start) * 512) for start, length in runs)
    host = start_host(disk, fragment_bytes=fragment_sectors * 512, cuts=list(cuts))
    reader = make_reader(host, request_bytes=request_sectors * 512, connections=2)
    assert gather(reader.read(extents, threading.Event()), disk) == extents


def test_a_ticket_never_shows_in_an_error(start_host: StartHost, make_reader: MakeReader) -> None:
    host = start_host(noise(MIB), refused_tickets=99)
    with pytest.raises(TicketRefused) as caught:
        list(make_reader(host, connections=1).read(Extents.whole(MIB), threading.Event()))
    assert "ticket-" not in str(caught.value)
