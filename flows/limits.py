"""How many disks are read from one ESXi host at once, over all migrations: Prefect's global concurrency limits."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound


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
def host_slots(host: str, disks: int, copies: int) -> Iterator[None]:
    """Holds a slot a disk on the host while its disks are read, and waits for them.

    A VM with more disks than the host has slots takes them all. A lease that can't be renewed doesn't end the copy: a
    base copy takes hours, and the server may be restarted meanwhile.
    """
    limit = ensure_host_limit(host, copies)
    with concurrency(
        [limit_name(host)], occupy=max(1, min(disks, limit)), strict=True, raise_on_lease_renewal_failure=False
    ):
        yield
