"""How many disks are read from one ESXi host at once, over all migrations: Prefect's global concurrency limits."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from snapferry.errors import Refused, Stopped
from snapferry.watch import Watch

WAIT_SECONDS = 12 * 3600.0
"""How long other migrations may keep a host busy: a base copy takes hours."""
LOOK_SECONDS = 5.0
"""How often a wait looks whether it shall end."""


def limit_name(host: str) -> str:
    """The limit's name in the Prefect UI: `snapferry-host-esx1.example.org`."""
    return f"snapferry-host-{host}"


def ensure_host_limit(host: str, copies: int) -> int:
    """Creates the host's limit where there is none; one that an operator has changed is left alone.

    Returns:
        How many disks it lets through.
    """
    name = limit_name(host)
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(name).limit
        except ObjectNotFound:
            pass
        try:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=copies))
        except ObjectAlreadyExists:
            return client.read_global_concurrency_limit_by_name(name).limit
        return copies


@contextmanager
def host_slots(host: str, disks: int, copies: int, watch: Watch, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Holds a slot a disk on the host while its disks are read, and waits for them.

    A VM with more disks than the host has slots takes them all. A lease that can't be renewed doesn't end the copy: a
    base copy takes hours, and the server may be restarted meanwhile.

    Args:
        host: the ESXi host's name.
        disks: how many are read.
        copies: the plan's limit, used where the host has none yet.
        watch: is told what is waited for, and ends the wait.
        wait_seconds: how long.

    Raises:
        Stopped: the watch said so.
        Refused: others kept the host busy all the time.
    """
    wanted = max(1, min(disks, ensure_host_limit(host, copies)))
    deadline, told = time.monotonic() + wait_seconds, False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(
                    concurrency(
                        [limit_name(host)], occupy=wanted, strict=True, raise_on_lease_renewal_failure=False,
                        timeout_seconds=max(1.0, min(LOOK_SECONDS, deadline - time.monotonic())),
                    )
                )  # fmt: skip
                break
            except TimeoutError as error:
                _go_on_waiting(host, wanted, watch, deadline, error)
            if not told:
                watch.step(
                    "waiting", f"for {wanted} slot(s) of {host}: other disks are read from it ({limit_name(host)})"
                )
                told = True
        yield


def _go_on_waiting(host: str, wanted: int, watch: Watch, deadline: float, error: TimeoutError) -> None:
    """Raises where a wait for slots is over."""
    if watch.stop.is_set():
        raise Stopped(f"Told to stop while waiting for {host}.", "Run it again.") from error
    if time.monotonic() >= deadline:
        raise Refused(
            f"{host}: other migrations kept it busy; {wanted} slot(s) weren't free in time.",
            f"Raise the limit {limit_name(host)} in the Prefect UI (Concurrency), or run again when they are done.",
        ) from error
