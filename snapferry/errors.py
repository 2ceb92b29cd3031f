"""Errors that an operator reads: what went wrong, and what to do next."""

from typing import ClassVar


class SnapferryError(Exception):
    """Base of every error that Snapferry names.

    Args:
        cause: what went wrong, in one sentence, with the names of the things involved.
        next_step: what the operator should do now; empty only where nothing can be done.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, next_step: str = "") -> None:
        super().__init__(cause, next_step)
        self.cause = cause
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.cause} {self.next_step}".strip()


class PlanError(SnapferryError):
    """The plan itself is wrong: unknown field, bad value, a VM that doesn't exist or is ambiguous."""

    exit_code = 2


class Refused(SnapferryError):
    """Something at either end has to be put right first; nothing was changed."""

    exit_code = 3


class SourceError(SnapferryError):
    """vCenter or a host refused, failed or didn't answer in time."""


class TargetError(SnapferryError):
    """OpenNebula refused, failed or didn't answer in time."""


class TransferError(SnapferryError):
    """Blocks couldn't be read, written or made durable."""


class Stopped(SnapferryError):
    """The work was told to stop, and did; what is on stable storage stays."""

    exit_code = 130


class LeaseLost(SnapferryError):
    """Another run holds this VM; nothing more may be written by this one."""


class RolledBack(SnapferryError):
    """The cutover failed before the point of no return; the source is back in service."""

    exit_code = 5


class SourceLeftOff(SnapferryError):
    """Neither end serves the VM: the cutover failed, and its roll-back too. A person has to look at once."""
