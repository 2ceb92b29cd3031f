"""The operator's procedure without Prefect, deaths in the middle of it, and the comparison of both ends."""

import os
from collections.abc import Callable
from pathlib import Path

from snapferry import opennebula
from snapferry.cutover import CutoverResult, cut_over
from snapferry.lab import Lab
from snapferry.lab.digest import file_extents_digest
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.record import DiskRecord, RoundResult
from snapferry.rounds import run_round
from snapferry.watch import Watch


def warm(migration: Migration) -> list[RoundResult]:
    """Prepares, and makes rounds until another one doesn't pay."""
    prepare(migration, Watch())
    rounds = [run_round(migration, Watch())]
    while rounds[-1].verdict and rounds[-1].verdict.decision == "another":
        rounds.append(run_round(migration, Watch()))
    return rounds


def migrate(migration: Migration) -> tuple[list[RoundResult], CutoverResult]:
    """The whole move."""
    rounds = warm(migration)
    return rounds, cut_over(migration, Watch())


def image_path(migration: Migration, disk: DiskRecord) -> Path:
    """Where the image of a disk lies."""
    return Path(opennebula.read_image(migration.target, disk.image_id).source)


def assert_equal(lab: Lab, migration: Migration) -> None:
    """Compares every disk of the powered-off VM with its image, by code that copied none of them."""
    migration.refresh()
    for index, disk in enumerate(migration.planned.disks):
        path = image_path(migration, disk)
        assert path.stat().st_size == disk.capacity_bytes
        assert file_extents_digest(path) == lab.control.extents_digest(migration.vm.name, index), (
            f"{disk.label} differs"
        )


def means(result: RoundResult | None) -> set[str]:
    """By what the round's changes were found."""
    assert result
    return {disk.changes for disk in result.disks}


def die_at(step: str, act: Callable[[Watch], object], detail: str = "") -> None:
    """Runs the act in a process that is gone, without a word, as the step of that name and detail begins."""

    def look(name: str, text: str) -> None:
        if name == step and text.startswith(detail):
            os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            act(Watch(on_step=look))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
