"""How Prefect is reached: one address, one client, one set of errors where it doesn't answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL

from snapferry.errors import Refused

_EXAMPLE = "http://127.0.0.1:4200/api"


def prefect_address() -> str | None:
    """Where Prefect's API is, by PREFECT_API_URL; None where that isn't set: Prefect would start a server of its own.

    Raises:
        Refused: it isn't the address of a web server.
    """
    address: str | None = PREFECT_API_URL.value()
    if not address:
        return None
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise _no_address(address) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise _no_address(address)
    return address


@contextmanager
def prefect_server() -> Iterator[SyncPrefectClient]:
    """A client of the Prefect server, which has answered.

    Raises:
        Refused: no address is configured, nothing answers there or not Prefect, or it refuses the password.
    """
    address = prefect_address()
    if not address:
        raise Refused(
            "No Prefect server is configured.",
            f"Start one (`prefect server start`), then `prefect config set PREFECT_API_URL={_EXAMPLE}`.",
        )
    try:
        with get_client(sync_client=True) as client:
            _check_is_prefect(client, address)
            yield client
    except httpx.TransportError as error:
        raise Refused(
            f"Prefect at {address} doesn't answer: {error}.",
            "Start the server, or mend PREFECT_API_URL; where it isn't set, the environment alone describes vCenter"
            " and OpenNebula.",
        ) from error


def _check_is_prefect(client: SyncPrefectClient, address: str) -> None:
    """Without its path, the address of Prefect's UI answers that it knows nothing: no block, no deployment."""
    try:
        client.api_version()
    except (httpx.HTTPStatusError, JSONDecodeError) as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED:
            raise Refused(
                f"Prefect at {address} refuses this client's password.",
                "Set PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING.",
            ) from error
        raise Refused(
            f"What answers at {address} isn't Prefect's API: {error}.", f"Mend PREFECT_API_URL: it is like {_EXAMPLE}."
        ) from error


def _no_address(address: str) -> Refused:
    return Refused(f"PREFECT_API_URL is {address!r}, which is no address.", f"Mend it: it is like {_EXAMPLE}.")
