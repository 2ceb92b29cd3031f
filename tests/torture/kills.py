"""A migration that is killed at a drawn point or moment, continued by another process, and looked at afterwards.

Points are taken where the engine meets the world: before and after each call to either end, each write, flush and entry
of a journal, and each step that it tells. They are counted by wrapping these in the process that is going to die.
"""

import os
import random
import re
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pyVmomi import vim

from snapferry.cutover import cut_over
from snapferry.errors import SnapferryError
from snapferry.lab import Lab
from snapferry.migration import Migration
from snapferry.opennebula.client import Post
from snapferry.prepare import prepare
from snapferry.record import Phase
from snapferry.rounds import run_round
from snapferry.transfer import FileJournal
from snapferry.vsphere.stub import RenewingStub
from snapferry.watch import Watch
from snapferry.writers import RawFileWriter

from ..engine.support import assert_equal

Open = Callable[[str], Migration]

GROUPS = ("copy",) * 5 + ("off-copy",) * 2 + ("off-call",) * 5 + ("call",) * 3 + ("time",) * 5
"""Of twenty kills: in a copy, in the copy of the last changes, at other points after power-off and before it, and at
any time."""
ATTEMPTS = 6
PATIENCE_SECONDS = 120.0


class Kill(NamedTuple):
    """When a run is killed: at the `number`th point of a group, or after some seconds."""

    group: str
    number: int = 0
    seconds: float = 0.0


class Pilot(NamedTuple):
    """A run that nobody killed: how many points each group has, and how long it took."""

    points: Counter[str]
    seconds: float

    def draw(self, group: str, chance: random.Random) -> Kill:
        if group == "time":
            return Kill(group, seconds=chance.uniform(0, self.seconds))
        return Kill(group, number=chance.randrange(self.points[group]))


class Outcome(NamedTuple):
    """What became of one VM."""

    vm: str
    kill: Kill
    group: str
    """Of the last point that it passed; empty where it ended before it was killed."""
    point: str
    failure: str = ""

    def __str__(self) -> str:
        when = f"{self.kill.seconds:.2f} s" if self.kill.group == "time" else f"{self.kill.group} {self.kill.number}"
        return f"{self.vm}: drawn {when}, killed at {self.point or 'no point: it was done'}. {self.failure}".rstrip()


class Points:
    """Notes each point that this process passes in a file, and kills the process at the drawn one."""

    def __init__(self, file: Path, kill: Kill | None) -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._kill = kill
        self._off = False
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def passed(self, kind: str, name: str) -> None:
        with self._lock:
            self._off = self._off or name == "disconnect NICs"  # the step right after the VM is seen off
            group = f"off-{kind}" if self._off else kind
            os.write(self._fd, f"{group} {name}\n".encode())
            if self._kill and self._kill.group == group and self._kill.number == self._passed[group]:
                os.kill(os.getpid(), signal.SIGKILL)
            self._passed[group] += 1

    def watch(self) -> Watch:
        return Watch(
            on_step=lambda name, _: self.passed("call", name), on_disk=lambda disk: self.passed("copy", "progress")
        )

    def around(self, owner: type, method: str, kind: str, name: Callable[..., str]) -> None:
        """Makes the method's begin and end points, for this process's remaining life."""
        plain = getattr(owner, method)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.passed(kind, f"before {name(*arguments)}")
            answer = plain(*arguments, **named)
            self.passed(kind, f"after {name(*arguments)}")
            return answer

        setattr(owner, method, wrapped)

    def around_everything(self) -> None:
        self.around(Post, "__call__", "call", lambda _, url, body, headers: _method_of(body))
        self.around(RenewingStub, "InvokeMethod", "call", lambda stub, mo, info, arguments: str(info.name))
        for owner, methods in ((RawFileWriter, ("write", "zero", "flush")), (FileJournal, ("add", "clear"))):
            for method in methods:
                self.around(owner, method, "copy", lambda *_, text=f"{owner.__name__}.{method}": text)


def _method_of(body: bytes) -> str:
    found = re.search(rb"<methodName>(.*?)</methodName>", body)
    return found[1].decode() if found else "?"


def presync(migration: Migration, watch: Watch) -> None:
    """What `snapferry presync` does."""
    prepare(migration, watch)
    while True:
        verdict = run_round(migration, watch).verdict
        if verdict is None or verdict.decision != "another":
            return


def first_run(open_vm: Open, vm: str, file: Path, kill: Kill | None) -> None:
    """The run that is killed."""
    points = Points(file, kill)
    points.around_everything()
    with open_vm(vm) as migration:
        presync(migration, points.watch())
        cut_over(migration, points.watch())


def next_runs(open_vm: Open, vm: str, file: Path) -> None:
    """What an operator does about a dead run: pre-sync and cutover again, until the VM has moved."""
    for number in range(ATTEMPTS):
        command = cut_over if number % 2 else presync
        with open_vm(vm) as migration:
            try:
                command(migration, Watch())
            except SnapferryError as error:
                with file.open("a") as told:
                    told.write(f"{command.__name__}: {type(error).__name__}: {error}\n")
            else:
                if command is cut_over:
                    return


def in_child(work: Callable[[], None], file: Path, kill_after: float | None = None) -> int:
    """Does the work in a process of its own; returns its exit code, negative for a signal.

    Args:
        file: gets the traceback of what it raised.
        kill_after: seconds until it is killed.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 -- told to the parent
            import traceback

            file.with_suffix(".error").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    handle = os.pidfd_open(child)
    try:
        ended = select.select([handle], [], [], PATIENCE_SECONDS if kill_after is None else kill_after)[0]
        if not ended:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fly(lab: Lab, open_vm: Open, vm: str, folder: Path) -> Pilot:
    """The run without a kill."""
    lab.control.power_on(vm)
    began, file = time.monotonic(), folder / f"{vm}.points"
    assert in_child(lambda: first_run(open_vm, vm, file, None), file) == 0, file.with_suffix(".error").read_text()
    return Pilot(Counter(line.split(" ")[0] for line in file.read_text().splitlines()), time.monotonic() - began)


def die_and_go_on(lab: Lab, open_vm: Open, vm: str, kill: Kill, folder: Path) -> Outcome:
    """Kills one VM's run, continues it in another process, and looks at both ends."""
    lab.control.power_on(vm)
    points, told = folder / f"{vm}.points", folder / f"{vm}.told"
    code = in_child(lambda: first_run(open_vm, vm, points, kill), points, kill.seconds or None)
    passed = points.read_text().splitlines() if points.exists() else []
    group, _, point = (passed or ["call its start"])[-1].partition(" ")
    outcome = Outcome(vm, kill, *((group, point) if code == -signal.SIGKILL else ("", "")))
    try:
        assert code in (0, -signal.SIGKILL), points.with_suffix(".error").read_text()
        assert in_child(lambda: next_runs(open_vm, vm, told), told) == 0, told.with_suffix(".error").read_text()
        with open_vm(vm) as migration:
            check_moved(lab, migration, vm)
    except (AssertionError, SnapferryError) as error:
        heard = told.read_text() if told.exists() else ""
        return outcome._replace(failure=f"FAILED: {type(error).__name__}: {error}\n{heard}")
    return outcome


def check_moved(lab: Lab, migration: Migration, vm: str) -> None:
    """The VM is at the target, equal, in service at one end only ever, and nothing of ours is left over."""
    assert migration.planned.phase == Phase.MIGRATED, migration.planned.phase
    now = lab.control.inventory()
    source = now.vms[f"{vm}-migrated"]
    assert (source.power, source.snapshots, source.consolidation_needed) == ("poweredOff", (), False), source
    machines = [one for one in now.machines if one["name"] == vm]
    assert [one["lcm_state"] for one in machines] == [3], machines
    images = [one for one in now.images if one["name"].startswith(f"{vm}-disk-")]
    assert sorted(one["id"] for one in images) == sorted(disk.image_id for disk in migration.planned.disks), images
    assert [one["state"] for one in images] == ["USED_PERS"] * len(images), images
    templates = [one["id"] for one in now.templates if one["name"] == vm]
    assert templates == [migration.planned.template_id], templates
    ours = {("IMAGE", one["id"]) for one in images} | {("TEMPLATE", templates[0])}
    assert not [one for one in now.locks if (one["kind"], one["id"]) in ours], now.locks
    assert_equal(lab, migration)
    check_never_both(migration)


def check_never_both(migration: Migration) -> None:
    """The source was never on while a machine of this migration was, by the ends' own clocks (which are one)."""
    on: list[tuple[datetime, bool]] = []
    manager = migration.source.content.eventManager
    spec = vim.event.EventFilterSpec
    entity = spec.ByEntity(entity=migration.source.bind(vim.VirtualMachine, migration.vm.moref), recursion="self")
    for event in sorted(manager.QueryEvents(spec(entity=entity)), key=lambda one: one.key):
        if type(event).__name__.endswith(("VmPoweredOnEvent", "VmPoweredOffEvent")):
            on.append((event.createdTime, type(event).__name__.endswith("OnEvent")))
    assert on and not on[-1][1], on
    pool = migration.target.call("vmpool.infoextended", -2, -1, -1, -2)
    for machine in pool.iterfind("VM"):
        number = int(machine.findtext("ID"))
        if machine.findtext("USER_TEMPLATE/SNAPFERRY_ID") != migration.planned.migration_id:
            continue
        history = lifetime(migration, number)
        begin = datetime.fromtimestamp(history[0] + 1, UTC)  # whole seconds
        end = datetime.fromtimestamp(history[1], UTC) if history[1] else datetime.max.replace(tzinfo=UTC)
        for at, switched_on in on:
            assert not (history[0] and switched_on and begin <= at < end), (number, history, on)
        before = [switched_on for at, switched_on in on if at < begin]
        assert not (history[0] and begin < end and before and before[-1]), (number, history, on)


def lifetime(migration: Migration, number: int) -> tuple[int, int]:
    """When a machine was started, and when it ended; 0 where it wasn't or didn't."""
    found = migration.target.call("vm.info", number, False)
    record = found.find("HISTORY_RECORDS/HISTORY")
    if record is None:
        return 0, 0
    return int(record.findtext("RSTIME") or 0), int(found.findtext("ETIME") or 0)
