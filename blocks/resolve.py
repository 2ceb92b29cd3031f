"""The one place that finds what a plan's block names stand for."""

import os
from collections.abc import Mapping
from typing import TypeVar, cast

from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from snapferry.blocks.opennebula import OpenNebula
from snapferry.blocks.prefect_api import prefect_address, prefect_server
from snapferry.blocks.vcenter import VCenter
from snapferry.errors import Refused

_BlockT = TypeVar("_BlockT", VCenter, OpenNebula)


def find_vcenter(name: str = "vcenter", environment: Mapping[str, str] = os.environ) -> VCenter:
    """The vCenter of that name: Prefect's block document if it knows one, else the environment's SNAPFERRY_VCENTER_….

    Raises:
        Refused: neither is there, or what is there can't be used.
    """
    return _find(VCenter, name, environment, "SNAPFERRY_VCENTER_HOST, _USER and _PASSWORD")


def find_opennebula(name: str = "opennebula", environment: Mapping[str, str] = os.environ) -> OpenNebula:
    """The OpenNebula of that name: Prefect's block document if it knows one, else SNAPFERRY_OPENNEBULA_….

    Raises:
        Refused: neither is there, or what is there can't be used.
    """
    return _find(OpenNebula, name, environment, "SNAPFERRY_OPENNEBULA_ENDPOINT, _USER and _PASSWORD")


def _find(kind: type[_BlockT], name: str, environment: Mapping[str, str], variables: str) -> _BlockT:
    try:
        found = _load(kind, name) or kind.from_environment(environment)
    except ValidationError as error:
        # only where and why: pydantic's own text repeats the values
        mistakes = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors(include_input=False))
        raise Refused(f"The {kind.__name__} '{name}' can't be used: {mistakes}.", f"Set {variables}.") from None
    except OSError as error:
        raise Refused(
            f"The CA of {kind.__name__} '{name}' can't be read: {error}.", "Give a PEM file's path."
        ) from error
    if found is None:
        raise Refused(
            f"Prefect knows no block {kind.__name__} named '{name}', and the environment describes none.",
            f"Create the block in Prefect's UI (Blocks, +; where the type is missing there,"
            f" `prefect block register -m snapferry.blocks` brings it), or set {variables}.",
        )
    return found


def _load(kind: type[_BlockT], name: str) -> _BlockT | None:
    """The block document; None where Prefect has none, or where no Prefect is configured."""
    if not prefect_address():
        return None
    with prefect_server():
        try:
            return cast(_BlockT, kind.load(name))
        except ValueError as error:
            if isinstance(error.__cause__, ObjectNotFound):
                return None
            raise
