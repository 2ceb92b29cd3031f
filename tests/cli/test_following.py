"""What a followed run tells a person, line by line."""

from datetime import UTC, datetime

import pytest

from snapferry.cli.following import steps_of
from snapferry.deployments import Update
from snapferry.deployments.runs import Line

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    "text",
    [
        "Encountered exception during execution: Refused('no')\nTraceback (most recent call last):",
        "Finished in state Failed('Task run encountered an exception Refused: no')",
        "Engine execution exited with unexpected exception\nTraceback (most recent call last):",
    ],
)
def test_the_error_that_ends_a_run_is_told_once_at_the_end_and_in_our_words(text: str) -> None:
    lines = (Line(at=NOW, text=text), Line(at=NOW, text="snapshot: taking r1"), Line(at=NOW, text="late\nTraceback"))
    assert [one for _, one in steps_of(Update(state="Running", lines=lines, disks=()))] == [
        "snapshot: taking r1",
        "late",
    ]
