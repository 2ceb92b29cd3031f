"""A plan says what it wants, and every mistake in one is named with file, line and field."""

from pathlib import Path

import pytest

from snapferry.errors import PlanError
from snapferry.plan import MigrationPlan

GOOD = """\
vm: /Vienna/vm/prod/web01
image_datastore: default
networks:
  VM Network: lan
downtime_budget: 1m 30s
floor: 32 MiB
rate_limit: 200 MB/s
shutdown:
  timeout: 2m
  on_timeout: power-off
snapshot: {most_age: 12h, most_size: 20 GB, least_free: 5%}
window:
  days: [sat, sun]
  start: "22:00"
  end: "04:00"
  timezone: Europe/Vienna
"""


def test_a_plan_reads_as_a_person_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "web01.yaml"
    file.write_text(GOOD)
    plan = MigrationPlan.load(file)
    assert plan.slug == "web01"
    assert (plan.downtime_budget_seconds, plan.floor_bytes, plan.rate_limit_bytes) == (90, 32 << 20, 200_000_000)
    assert (plan.networks[0].source, plan.networks[0].target) == ("VM Network", "lan")
    limits = plan.snapshot
    assert (limits.most_age_seconds, limits.most_size_bytes, limits.least_free) == (43200, 20_000_000_000, 0.05)
    assert (plan.shutdown.timeout_seconds, plan.shutdown.on_timeout) == (120, "power-off")


def test_a_plan_survives_the_way_through_json() -> None:
    plan = MigrationPlan.from_yaml(GOOD, "web01.yaml")
    assert MigrationPlan.model_validate(plan.model_dump(mode="json")) == plan
    assert MigrationPlan.model_validate(plan.model_dump(mode="json", by_alias=True)) == plan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("floor: 32 MiB", "flor: 32 MiB"), ["web01.yaml:6", "flor", "no such field"]),
        (("floor: 32 MiB", "floor: many"), ["web01.yaml:6", "floor", "no size"]),
        (("1m 30s", "soon"), ["web01.yaml:5", "downtime_budget", "no duration"]),
        (("on_timeout: power-off", "on_timeout: kill"), ["web01.yaml:10", "shutdown.on_timeout", "power-off"]),
        (("timeout: 2m", "timeout: 5h"), ["web01.yaml:9", "shutdown.timeout"]),
        (("least_free: 5%", "least_free: little"), ["web01.yaml:11", "snapshot.least_free", "no share"]),
        (("least_free: 5%", "least_free: 100%"), ["web01.yaml:11", "snapshot.least_free"]),
        (("Europe/Vienna", "Europe/Wien"), ["web01.yaml:16", "window.timezone", "no time zone"]),
        (("[sat, sun]", "[sat, son]"), ["web01.yaml:13", "window.days"]),
        (("image_datastore: default\n", ""), ["web01.yaml:1", "image_datastore", "required"]),
        (("vm: /Vienna/vm/prod/web01\n", 'vm: ""\n'), ["web01.yaml:1", "vm"]),
        (("networks:", "networks"), ["web01.yaml:"]),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(change: tuple[str, str], says: list[str]) -> None:
    assert change[0] in GOOD
    with pytest.raises(PlanError) as caught:
        MigrationPlan.from_yaml(GOOD.replace(*change), "web01.yaml")
    for part in says:
        assert part in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        MigrationPlan.from_yaml("vm: a\nmax_rounds: 1\ngate: perhaps\n", "p.yaml")
    assert [line.split(":")[1] for line in caught.value.cause.splitlines()] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "just text", "vm: [unclosed", "\x00", "vm: !!python/object:os.system x"]
)
def test_what_is_no_plan_is_refused_without_a_traceback(text: str) -> None:
    with pytest.raises(PlanError):
        MigrationPlan.from_yaml(text, "p.yaml")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.yaml"):
        MigrationPlan.load(tmp_path / "none.yaml")
