"""What was done, for people and for machines; `docs/report.schema.json` describes the report's JSON."""

from collections.abc import Sequence
from datetime import UTC, datetime

from snapferry.migration import Migration
from snapferry.plan import Frozen
from snapferry.record import DiskResult, Phase, RoundResult

_PLOT = (720, 260)
_MARGIN = (64, 40, 64, 36)


class ReportDisk(Frozen):
    """One disk of the report."""

    label: str
    place: str
    capacity_bytes: int
    image_id: int
    image_name: str
    copied_bytes: int
    """Read from the source over all rounds."""


class ReportRound(Frozen):
    """One round of the report."""

    number: int
    kind: str
    started: datetime
    seconds: float
    changed_bytes: int
    copied_bytes: int
    bytes_per_second: float
    predicted_downtime_seconds: float | None
    decision: str | None
    doubts: tuple[str, ...] = ()
    """Of each disk that was read in full although there was a base: its label, why, and how much differed."""
    changes: tuple[str, ...] = ()
    """Of each disk: its label, and by what its changes were found."""
    routes: tuple[str, ...] = ()
    """Of each disk: its label, by which route it was read, and why not by another that failed before."""


class Report(Frozen):
    """A whole migration."""

    version: int = 1
    vm: str
    migration_id: str
    phase: Phase
    template_id: int
    machine_id: int | None
    made: datetime
    untracked: str = ""
    """Why change tracking wasn't used; empty where it was."""
    rounds: tuple[ReportRound, ...]
    disks: tuple[ReportDisk, ...]
    copied_bytes: int
    downtime_seconds: float | None
    downtime_parts: dict[str, float]
    rolled_back_seconds: float = 0.0
    """Downtime of earlier attempts, which were rolled back."""


def build_report(migration: Migration) -> Report:
    """The report, from the record at the target.

    Raises:
        Refused: nothing was done for this VM yet.
    """
    record = migration.planned
    cutover = record.cutover
    copied = {
        disk.key: sum(part.read_bytes for one in record.rounds for part in one.disks if part.key == disk.key)
        for disk in record.disks
    }
    return Report(
        vm=record.vm_name,
        migration_id=record.migration_id,
        phase=record.phase,
        template_id=record.template_id,
        machine_id=cutover.machine_id if cutover else None,
        made=datetime.now(UTC),
        untracked=record.untracked,
        rounds=tuple(_round(one) for one in record.rounds),
        disks=tuple(
            ReportDisk(
                label=disk.label,
                place=disk.place,
                capacity_bytes=disk.capacity_bytes,
                image_id=disk.image_id,
                image_name=disk.image_name,
                copied_bytes=copied[disk.key],
            )
            for disk in record.disks
        ),
        copied_bytes=sum(one.copied_bytes for one in record.rounds),
        downtime_seconds=cutover.downtime_seconds if cutover else None,
        downtime_parts=cutover.parts if cutover else {},
        rolled_back_seconds=record.rolled_back_seconds,
    )


def _round(one: RoundResult) -> ReportRound:
    return ReportRound(
        number=one.number,
        kind=one.kind,
        started=one.started,
        seconds=one.seconds,
        changed_bytes=one.changed_bytes,
        copied_bytes=one.copied_bytes,
        bytes_per_second=one.bytes_per_second,
        predicted_downtime_seconds=one.predicted_downtime_seconds,
        decision=one.verdict.decision if one.verdict else None,
        doubts=tuple(f"{disk.label}: {_doubt(disk)}" for disk in one.disks if disk.doubt),
        changes=tuple(f"{disk.label}: {disk.changes}" for disk in one.disks),
        routes=tuple(f"{disk.label}: {_route(disk)}" for disk in one.disks if disk.route),
    )


def _doubt(disk: DiskResult) -> str:
    if disk.differing_bytes is None:
        return disk.doubt
    return f"{disk.doubt}; of {disk.read_bytes / 1e6:,.1f} MB, {disk.differing_bytes / 1e6:,.1f} MB differed"


def _route(disk: DiskResult) -> str:
    return f"{disk.route}, because {disk.detour}" if disk.detour else disk.route


def rounds_table(rounds: Sequence[RoundResult]) -> str:
    """The rounds as a Markdown table."""
    lines = [
        "| round | kind | started (UTC) | changed | time | rate | downtime then | verdict |",
        "|---:|---|---|---:|---:|---:|---:|---|",
    ]
    for one in rounds:
        seconds = one.predicted_downtime_seconds
        downtime = "" if seconds is None else f"{seconds:.0f} s"
        decision = one.verdict.decision if one.verdict else ""
        lines.append(
            f"| {one.number} | {one.kind} | {one.started:%m-%d %H:%M:%S} | {one.changed_bytes / 1e6:,.1f} MB |"
            f" {one.seconds:.1f} s | {one.bytes_per_second / 1e6:,.0f} MB/s | {downtime} | {decision} |"
        )
    doubts = [
        f"- Round {one.number}, {disk.label}: {_doubt(disk)}." for one in rounds for disk in one.disks if disk.doubt
    ]
    detours = [
        f"- Round {one.number}, {disk.label}: by {_route(disk)}." for one in rounds for disk in one.disks if disk.detour
    ]
    lines += ["", "Read in full, because:", *doubts] if doubts else []
    return "\n".join(lines + (["", "Read by another route:", *detours] if detours else []))


def report_markdown(report: Report) -> str:
    """The report for people."""
    downtime = "none yet" if report.downtime_seconds is None else f"{report.downtime_seconds:.1f} s"
    if report.rolled_back_seconds:
        downtime += f", and {report.rolled_back_seconds:.1f} s of attempts that were rolled back"
    where = f"VM {report.machine_id}" if report.machine_id is not None else f"template {report.template_id}"
    parts = "\n".join(f"| {name} | {seconds:.1f} s |" for name, seconds in report.downtime_parts.items())
    disks = "\n".join(
        f"| {one.label} | {one.place} | {one.capacity_bytes / 2**30:,.2f} GiB |"
        f" {one.image_id} ({_cell(one.image_name)}) | {one.copied_bytes / 1e6:,.1f} MB |"
        for one in report.disks
    )
    return (
        f"# {_cell(report.vm)}: {report.phase.value}\n\n"
        f"At the target: {where}. Downtime: **{downtime}**. Rounds: {len(report.rounds)}, "
        f"{report.copied_bytes / 1e6:,.1f} MB copied.\n\n"
        f"## Downtime\n\n| step | time |\n|---|---:|\n{parts}\n\n"
        f"{_changes(report)}{_routes(report)}{_doubts(report)}"
        f"## Disks\n\n| disk | place | capacity | image | copied |\n|---|---|---:|---|---:|\n{disks}\n"
    )


def _doubts(report: Report) -> str:
    lines = [f"- Round {one.number}, {_cell(doubt)}." for one in report.rounds for doubt in one.doubts]
    return "\n".join(["## Read in full, because", "", *lines, "", ""]) if lines else ""


def _changes(report: Report) -> str:
    """By what changes were found, where that wasn't change tracking."""
    if not report.untracked:
        return ""
    means = dict.fromkeys(f"- {_cell(each)}" for one in report.rounds for each in one.changes)
    return "\n".join([f"## Changes found without change tracking: {_cell(report.untracked)}", "", *means, "", ""])


def _routes(report: Report) -> str:
    """How the disks were read, each way once."""
    ways = dict.fromkeys(route for one in report.rounds for route in one.routes)
    return "\n".join(["## Read by", "", *(f"- {_cell(one)}" for one in ways), "", ""]) if ways else ""


def _cell(text: str) -> str:
    """Text that may hold anything, inside a table's cell or a heading."""
    for odd in "\\|`*_[]<>#":
        text = text.replace(odd, f"\\{odd}")
    return " ".join(text.split())


def rounds_plot(rounds: Sequence[RoundResult]) -> str:
    """Delta (bars) and predicted downtime (line) over the rounds, as SVG text."""
    width, height = _PLOT
    left, top, right, bottom = _MARGIN
    inner_width, inner_height = width - left - right, height - top - bottom
    step = inner_width / max(len(rounds), 1)
    most = max((one.changed_bytes for one in rounds), default=0) or 1
    longest = max((one.predicted_downtime_seconds or 0.0 for one in rounds), default=0.0) or 1.0
    base = top + inner_height
    shapes, points = [], []
    for index, one in enumerate(rounds):
        x, bar = left + step * index, inner_height * one.changed_bytes / most
        shapes.append(
            f'<rect x="{x + step * 0.2:.1f}" y="{base - bar:.1f}" width="{step * 0.6:.1f}"'
            f' height="{bar:.1f}" fill="#3b6fb6"/>'
            f'<text x="{x + step / 2:.1f}" y="{base - bar - 4:.1f}" text-anchor="middle">'
            f"{one.changed_bytes / 1e6:,.1f}</text>"
            f'<text x="{x + step / 2:.1f}" y="{base + 16}" text-anchor="middle">{one.number}</text>'
        )
        if one.predicted_downtime_seconds is not None:
            y = base - inner_height * one.predicted_downtime_seconds / longest
            points.append(f"{x + step / 2:.1f},{y:.1f}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="11" fill="#333">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(shapes)}'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#d2691e" stroke-width="2"/>'
        f'<line x1="{left}" y1="{base}" x2="{width - right}" y2="{base}" stroke="#333"/>'
        f'<text x="8" y="14">changed (MB)</text>'
        f'<text x="{width - right}" y="14" text-anchor="end" fill="#d2691e">'
        f"predicted downtime, at most {longest:.0f} s</text>"
        f'<text x="{left + inner_width / 2:.1f}" y="{height - 4}" text-anchor="middle">round</text></svg>'
    )
