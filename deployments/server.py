"""How the command line reaches Prefect: one client, one error where it doesn't answer."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from snapferry.blocks import wrong_password
from snapferry.errors import Refused


@contextmanager
def prefect_server() -> Iterator[SyncPrefectClient]:
    """A client of the Prefect server.

    Raises:
        Refused: no address is configured (Prefect would start a server of its own), nothing answers there, or it
            refuses the password.
    """
    address = PREFECT_API_URL.value()
    if not address:
        raise Refused(
            "No Prefect server is configured.",
            "Start one (`prefect server start`), then `prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api`.",
        )
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise Refused(
            f"Prefect at {address} doesn't answer: {error}.", "Start the server, or mend PREFECT_API_URL."
        ) from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            raise wrong_password(address) from error
        raise


def run_url(flow_run_id: object) -> str:
    """Where a flow run is seen in the Prefect UI."""
    base = PREFECT_UI_URL.value() or (PREFECT_API_URL.value() or "").removesuffix("/api")
    return f"{base}/runs/flow-run/{flow_run_id}"
