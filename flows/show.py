"""What an operator sees in the Prefect UI, and what automations can react to: artifacts and events."""

import base64
from collections.abc import Sequence
from typing import Any, Literal

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from snapferry.assess import Assessment
from snapferry.flows.progress import artifact_key
from snapferry.flows.text import size
from snapferry.migration import Migration
from snapferry.reconcile import Discrepancy
from snapferry.record import RoundResult
from snapferry.report import build_report, report_markdown, rounds_plot, rounds_table

Event = Literal["round.completed", "converged", "gate.waiting", "cutover.started", "migrated", "rolled-back"]


def tell(event: Event, migration: Migration, **payload: str | int | float | None) -> None:
    """Emits `snapferry.<event>` for the VM, under the name that it had before a cutover marked it as migrated."""
    key, name = migration.vm.key, migration.record.vm_name if migration.record else migration.vm.name
    resource = {"prefect.resource.id": f"snapferry.vm.{key}", "prefect.resource.name": name}
    emit_event(f"snapferry.{event}", resource=resource, payload={"vm": name, "plan": migration.plan.vm, **payload})


def show_round(migration: Migration, result: RoundResult) -> None:
    """The rounds so far as a plot and a table, and the events of this one."""
    show_rounds(migration.plan.slug, migration.planned.rounds)
    tell(
        "round.completed",
        migration,
        number=result.number,
        kind=result.kind,
        changed_bytes=result.changed_bytes,
        seconds=result.seconds,
        predicted_downtime_seconds=result.verdict.predicted_downtime_seconds if result.verdict else None,
    )
    if result.verdict and result.verdict.decision == "converged":
        tell("converged", migration, reason=result.verdict.reason)


def show_rounds(slug: str, rounds: Sequence[RoundResult]) -> None:
    """Delta and predicted downtime over the rounds as a plot, above the table of rounds.

    The plot stands in the Markdown: an image artifact shows a data: URI's whole text below the image.
    """
    plot = base64.b64encode(rounds_plot(rounds).encode()).decode()
    create_markdown_artifact(
        f"![Delta and predicted downtime](data:image/svg+xml;base64,{plot})\n\n{rounds_table(rounds)}",
        key=artifact_key(slug, "rounds"),
        description=f"The rounds of {slug} so far.",
    )


def show_report(migration: Migration) -> None:
    """The final report."""
    create_markdown_artifact(
        report_markdown(build_report(migration)),
        key=artifact_key(migration.plan.slug, "report"),
        description=f"What was done with {migration.vm.name}.",
    )


def show_assessments(assessments: Sequence[Assessment]) -> None:
    """A table with a line a VM."""
    rows: list[dict[str, Any]] = [
        {
            "VM": one.vm.name,
            "ready": "yes" if one.ready else "no",
            "disks": len(one.vm.disks),
            "capacity": size(one.estimate.base_bytes),
            "first round": f"{one.estimate.base_seconds / 60:.0f} min at most",
            "downtime": f"{one.estimate.downtime_seconds:.0f} s",
            "concerns": "; ".join(f"{concern.severity}: {concern.text}" for concern in one.concerns) or "none",
            "next step": " ".join(concern.next_step for concern in one.concerns),
        }
        for one in assessments
    ]
    create_table_artifact(rows, key="snapferry-assessment", description="What stands in the way of each VM's move.")


def show_discrepancies(found: Sequence[Discrepancy]) -> None:
    """A table with a line for each thing that a reconcile found."""
    rows: list[dict[str, Any]] = [
        {"VM": one.vm, "found": one.what, "where": one.where, "repaired": one.repaired, "to do": one.needs}
        for one in found
    ]
    create_table_artifact(rows, key="snapferry-reconcile", description="What isn't as it should be at both ends.")
