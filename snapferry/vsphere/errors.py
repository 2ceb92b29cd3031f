"""What can go wrong at the source, by name."""

from snapferry.errors import Refused, SourceError


class WrongPassword(Refused):
    """vCenter refused user and password."""


class CertificateNotTrusted(Refused):
    """The server's certificate is neither signed by a known CA nor the pinned one; nothing secret was sent to it."""


class MissingPrivilege(Refused):
    """The vCenter user lacks a privilege.

    Attributes:
        privilege: its id, such as `VirtualMachine.State.CreateSnapshot`.
        entity: name (or moref) of the object that it is missing on.
    """

    def __init__(self, cause: str, next_step: str = "", *, privilege: str = "", entity: str = "") -> None:
        super().__init__(cause, next_step)
        self.privilege = privilege
        self.entity = entity


class Unreachable(SourceError):
    """vCenter or a host doesn't answer, or the connection broke."""


class VmGone(SourceError):
    """The VM is no longer in the inventory."""


class SnapshotGone(SourceError):
    """The snapshot is no longer there."""


class SnapshotExists(SourceError):
    """A snapshot of that name is there already; whether it may be adopted is for the caller to judge.

    Attributes:
        moref: the snapshot that has the name; the newest of several.
    """

    def __init__(self, cause: str, next_step: str = "", *, moref: str = "") -> None:
        super().__init__(cause, next_step)
        self.moref = moref


class ConsolidationNeeded(SourceError):
    """A snapshot is gone from the tree but its files couldn't be merged."""


class ChangesUnknown(SourceError):
    """Change tracking can't tell, or told something that can't be; nothing may be assumed."""


class HistoryIncomplete(SourceError):
    """vCenter has more events of the VM than it gives out at once: what happened meanwhile isn't known."""


class ShutdownTimeout(SourceError):
    """The guest didn't shut down in time; it still runs."""


class ShutdownRefused(SourceError):
    """The guest can't be asked to shut down: VMware Tools don't run, or the VM isn't in a state for it."""


class TaskFailed(SourceError):
    """A vCenter task ended with an error, or not in time."""


class NotInTime(TaskFailed):
    """What was waited for didn't come in time; it may still come."""


class OtherTaskRuns(SourceError):
    """vCenter works on the same object already and didn't finish in time."""


class InventoryIncomplete(SourceError):
    """vCenter doesn't tell what has to be known of a VM (it is inaccessible, orphaned or hidden from this user)."""
