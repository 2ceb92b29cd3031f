"""The report's JSON is what its schema says, and its pictures can be drawn."""

import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from snapferry.record import Phase, RoundResult
from snapferry.report import Report, ReportDisk, ReportRound, report_markdown, rounds_plot, rounds_table

from .test_record import one_round

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())

REPORT = Report(
    vm="web|01 <b>", migration_id="abc", phase=Phase.MIGRATED, template_id=4, machine_id=0,
    made=datetime(2026, 1, 1, tzinfo=UTC), copied_bytes=5, downtime_seconds=3.2, downtime_parts={"shutdown": 1.0},
    rounds=(ReportRound(number=1, kind="base", started=datetime(2026, 1, 1, tzinfo=UTC), seconds=1, changed_bytes=1,
                        copied_bytes=1, bytes_per_second=1, predicted_downtime_seconds=None, decision="another"),),
    disks=(ReportDisk(label="Hard disk 1", place="pvscsi0:0", capacity_bytes=512, image_id=7, image_name="a|b",
                      copied_bytes=1),),
)  # fmt: skip


def test_the_report_fits_its_schema_with_and_without_the_digests() -> None:
    data = REPORT.model_dump(mode="json")
    jsonschema.validate(data, SCHEMA)
    data["disks"][0] |= {"source_sha256": "0" * 64, "target_sha256": "f" * 64}
    jsonschema.validate(data, SCHEMA)
    data["disks"][0]["source_sha256"] = "none"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_the_report_says_what_was_copied_in_full_and_why() -> None:
    doubted = REPORT.rounds[0].model_copy(update={"doubts": ("Hard disk 1: change tracking was reset",)})
    report = REPORT.model_copy(update={"rounds": (doubted,)})
    jsonschema.validate(report.model_dump(mode="json"), SCHEMA)
    assert "- Round 1, Hard disk 1: change tracking was reset." in report_markdown(report)
    assert "in full" not in report_markdown(REPORT)


def test_the_report_says_by_which_route_each_disk_was_read_and_why() -> None:
    way = "Hard disk 1: datastore, because nfc failed: the port is closed"
    rounds = tuple(REPORT.rounds[0].model_copy(update={"number": number, "routes": (way,)}) for number in (1, 2))
    report = REPORT.model_copy(update={"rounds": rounds})
    jsonschema.validate(report.model_dump(mode="json"), SCHEMA)
    assert report_markdown(report).count(f"- {way}") == 1


def test_a_name_that_holds_markdown_breaks_no_table() -> None:
    text = report_markdown(REPORT)
    rows = [line for line in text.splitlines() if line.startswith("| Hard disk")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 6
    assert "<b>" not in text


@pytest.mark.parametrize("rounds", [[], [one_round(1, "base")], [one_round(1, "base"), one_round(2), one_round(3)]])
def test_any_number_of_rounds_can_be_drawn_and_listed(rounds: list[RoundResult]) -> None:
    picture = ElementTree.fromstring(rounds_plot(rounds))  # noqa: S314 -- our own
    bars = [one for one in picture.iter("{http://www.w3.org/2000/svg}rect") if one.get("fill") == "#3b6fb6"]
    assert len(bars) == len(rounds)
    assert len(rounds_table(rounds).splitlines()) == 2 + len(rounds)


def test_a_base_predicts_no_downtime() -> None:
    base, delta = one_round(1, "base"), one_round(2)
    assert base.predicted_downtime_seconds is None
    assert delta.predicted_downtime_seconds == 30
