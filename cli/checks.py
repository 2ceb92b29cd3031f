"""What `snapferry doctor` looks at, beside what the engine itself checks at both ends."""

import os
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from snapferry.blocks import find_opennebula, find_vcenter, prefect_server
from snapferry.deployments import WORK_POOL
from snapferry.doctor import Finding, check_source, check_target
from snapferry.errors import SnapferryError

WORKER_SILENT = timedelta(seconds=90)
"""A worker tells of itself every 30 s."""
_PACKAGES = ("snapferry", "prefect", "fastapi", "pyvmomi", "pyone", "pydantic", "numpy")


def check_versions() -> list[Finding]:
    """What runs here, and as whom."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    python = ".".join(str(part) for part in sys.version_info[:3])
    return [Finding(ok=True, what=f"Python {python}, user {os.geteuid()}; {packages}.")]


def check_prefect() -> list[Finding]:
    """Server, work pool and worker."""
    try:
        with prefect_server() as client:
            server = client.api_version()
            findings = [Finding(ok=True, what=f"Prefect {server} answers at {PREFECT_API_URL.value()}.")]
            return findings + _check_pool(client)
    except SnapferryError as error:
        return [_bad(error)]


def _check_pool(client: SyncPrefectClient) -> list[Finding]:
    try:
        pool = client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        return [Finding(ok=False, what=f"There is no work pool {WORK_POOL!r}.", advice="Run `snapferry deploy`.")]
    if pool.is_paused:
        return [Finding(ok=False, what=f"The work pool {WORK_POOL!r} is paused.", advice="Resume it in the UI.")]
    since = datetime.now(UTC) - WORKER_SILENT
    workers = client.read_workers_for_work_pool(WORK_POOL)
    alive = [one.name for one in workers if one.last_heartbeat_time and one.last_heartbeat_time > since]
    if alive:
        return [Finding(ok=True, what=f"At work for the pool {WORK_POOL!r}: {', '.join(alive)}.")]
    advice = f"Start one where the storage is: prefect worker start --pool {WORK_POOL}"
    return [Finding(ok=False, what=f"No worker works for the pool {WORK_POOL!r}.", advice=advice)]


def check_vcenter(block: str, vm: str | None) -> list[Finding]:
    """Block, login, inventory and privileges."""
    try:
        with find_vcenter(block).session() as session:
            return check_source(session, vm)
    except SnapferryError as error:
        return [_bad(error)]


def check_opennebula(block: str) -> list[Finding]:
    """Block, login and datastores."""
    try:
        with find_opennebula(block).client() as client:
            return check_target(client)
    except SnapferryError as error:
        return [_bad(error)]


def _bad(error: SnapferryError) -> Finding:
    return Finding(ok=False, what=error.cause, advice=error.next_step)
