"""Progress as an operator sees it in the Prefect UI, and as `follow` reads it."""

from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from snapferry.flows.progress import DATA, ProgressBoard, artifact_key, describe
from snapferry.watch import DiskProgress, Watch


def progress(done: int, total: int = 4_000_000_000, key: int = 2000) -> DiskProgress:
    return DiskProgress(
        key=key,
        label=f"Hard disk {key - 1999}",
        done_bytes=done,
        total_bytes=total,
        bytes_per_second=1e8,
        seconds_left=30,
    )


def artifacts(run: UUID) -> list[Artifact]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))


def test_a_line_tells_rate_and_time_left() -> None:
    assert describe(progress(1_000_000_000)) == "Hard disk 1: 1.0 GB of 4.0 GB, 100.0 MB/s, 30 s left"
    assert describe(progress(4_000_000_000)) == "Hard disk 1: 4.0 GB of 4.0 GB, done"
    assert describe(progress(0, 0)) == "Hard disk 1: 0 B of 0 B, done"


def test_a_vms_name_becomes_a_key_that_prefect_takes() -> None:
    assert artifact_key("Web_01.prod", "Hard disk 1") == "web-01-prod-hard-disk-1"


@pytest.mark.slow
def test_each_disk_has_its_bar_in_the_run_and_the_last_word_is_kept(prefect_api: str) -> None:
    name = f"vm{uuid4().hex[:6]}"

    @flow
    def copying() -> UUID:
        with ProgressBoard(name) as board:
            watch = Watch(on_disk=board.put)
            meters = [watch.disk(2000, "Hard disk 1", 1000), watch.disk(2001, "Hard disk 2", 500)]
            for _ in range(10):
                for meter, count in zip(meters, (100, 50), strict=True):
                    meter(count)
        return UUID(flow_run.id)

    found = {one.key: one for one in artifacts(copying())}
    assert set(found) == {f"{name}-hard-disk-1", f"{name}-hard-disk-2"}
    for one in found.values():
        assert (one.type, one.data) == ("progress", 100.0)
        assert one.metadata_
        kept = DiskProgress.model_validate_json(one.metadata_[DATA])
        assert kept.done_bytes == kept.total_bytes


@pytest.mark.slow
def test_the_next_round_gets_a_bar_of_its_own(prefect_api: str) -> None:
    name = f"vm{uuid4().hex[:6]}"

    @flow
    def two_rounds() -> UUID:
        with ProgressBoard(name) as board:
            board.put(progress(4_000_000_000))
            wait_until_shown(UUID(flow_run.id), 1)
            board.put(progress(1_000, 2_000))
        return UUID(flow_run.id)

    def wait_until_shown(run: UUID, count: int) -> None:
        from time import monotonic

        deadline = monotonic() + 10
        while len(artifacts(run)) < count:
            assert monotonic() < deadline, "no bar appeared within 10 s"

    assert sorted(float(str(one.data)) for one in artifacts(two_rounds())) == [50.0, 100.0]


@pytest.mark.slow
def test_a_prefect_that_is_down_doesnt_end_the_copy(dead_prefect: str) -> None:
    with ProgressBoard("web01") as board:
        board.put(progress(10))
