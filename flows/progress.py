"""Progress artifacts: one for each disk's copy, written beside the copy so that no pump waits for Prefect."""

import re
from contextvars import copy_context
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.logging import get_logger

from snapferry.flows.text import size
from snapferry.watch import UPDATE_SECONDS, DiskProgress

DATA = "snapferry"
"""Key in an artifact's metadata: the `DiskProgress` as JSON, for `follow`."""


class ProgressBoard:
    """Shows the last progress of each disk, at most every half second; what comes faster is replaced.

    Args:
        slug: the VM's name in artifact keys.
    """

    def __init__(self, slug: str) -> None:
        self._slug = slug
        self._lock = Lock()
        self._news: dict[int, DiskProgress] = {}
        self._shown: dict[int, tuple[UUID, int]] = {}
        self._end = Event()
        context = FlowRunContext.get()
        self._run = context.flow_run.id if context and context.flow_run else None
        self._thread = Thread(target=copy_context().run, args=(self._write,), name="progress", daemon=True)

    def put(self, progress: DiskProgress) -> None:
        """Notes a disk's progress; returns at once, from any thread."""
        with self._lock:
            self._news[progress.key] = progress

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end.set()
        self._thread.join(timeout=10)

    def _write(self) -> None:
        with get_client(sync_client=True) as client:
            ending = False
            while not ending:
                ending = self._end.wait(UPDATE_SECONDS)
                with self._lock:
                    news, self._news = self._news, {}
                for progress in news.values():
                    try:
                        self._show(client, progress)
                    except Exception as error:  # noqa: BLE001 - a progress bar must not end a copy
                        get_logger(__name__).warning("Progress of %s wasn't shown: %s", progress.label, error)

    def _show(self, client: SyncPrefectClient, progress: DiskProgress) -> None:
        percent = 100.0 * progress.done_bytes / progress.total_bytes if progress.total_bytes else 100.0
        metadata = {DATA: progress.model_dump_json()}
        shown = self._shown.get(progress.key)
        if shown and progress.done_bytes >= shown[1]:
            client.update_artifact(
                shown[0], ArtifactUpdate(data=percent, description=describe(progress), metadata_=metadata)
            )
            artifact = shown[0]
        else:  # the first of this disk, or of its next round
            artifact = client.create_artifact(
                ArtifactCreate(
                    key=artifact_key(self._slug, progress.label),
                    type="progress",
                    data=percent,
                    description=describe(progress),
                    metadata_=metadata,
                    flow_run_id=self._run,
                )
            ).id
        self._shown[progress.key] = (artifact, progress.done_bytes)


def describe(progress: DiskProgress) -> str:
    """One line: `Hard disk 1: 1.2 of 2.0 GB, 140.0 MB/s, 6 s left`."""
    line = f"{progress.label}: {size(progress.done_bytes)} of {size(progress.total_bytes)}"
    if progress.done_bytes >= progress.total_bytes:
        return f"{line}, done"
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    return f"{line}, {size(progress.bytes_per_second)}/s{left}"


def artifact_key(slug: str, what: str) -> str:
    """An artifact's key: lower-case letters, digits and dashes are all that Prefect takes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{slug} {what}".lower()).strip("-")
