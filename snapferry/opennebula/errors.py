"""What can go wrong at the target, by name."""

from datetime import UTC, datetime

from snapferry.errors import Refused, TargetError


class WrongPassword(Refused):
    """OpenNebula refused user and password, or the token has expired."""


class CertificateNotTrusted(Refused):
    """The frontend's certificate isn't signed by a known CA, or is another host's; nothing secret was sent to it."""


class NotAllowed(Refused):
    """The user may not do this, or name this attribute."""


class NoSpace(Refused):
    """A datastore or a quota has too little room."""


class UnmappedNetwork(Refused):
    """No OpenNebula network takes the place of a vSphere one, or several would."""


class BadName(Refused):
    """OpenNebula takes no object of this name."""


class NotRepresentable(Refused):
    """A value would not come back from OpenNebula as it went in; put it in base64."""


class StorageNotReached(Refused):
    """The worker doesn't see the datastore's files, or may not write them."""


class WrongFile(Refused):
    """What lies at an image's path isn't that image's own file; not a byte was written."""


class MacTaken(Refused):
    """Another machine at the target has the MAC."""


class Unreachable(TargetError):
    """The frontend doesn't answer, or not in time; whether it did what it was asked is unknown."""


class NoSuchObject(TargetError):
    """The object isn't there, or no longer."""


class NameTaken(TargetError):
    """This user has an object of that name already.

    Attributes:
        object_id: the object that has it; None where the frontend didn't say.
    """

    def __init__(self, cause: str, next_step: str = "", *, object_id: int | None = None) -> None:
        super().__init__(cause, next_step)
        self.object_id = object_id


class Locked(TargetError):
    """The object is locked.

    Attributes:
        time: since when, in seconds since the epoch by the frontend's clock; 0 where it didn't say.
    """

    def __init__(self, cause: str, next_step: str = "", *, time: int = 0) -> None:
        super().__init__(cause, next_step)
        self.time = time

    @property
    def since(self) -> datetime | None:
        """`time` as a moment."""
        return datetime.fromtimestamp(self.time, UTC) if self.time else None


class CallFailed(TargetError):
    """OpenNebula answered a call with an error that has no name of its own.

    Attributes:
        method: the call, such as `image.info`.
        code: the frontend's error code; 0 for an answer that isn't OpenNebula's.
    """

    def __init__(self, cause: str, next_step: str = "", *, method: str = "", code: int = 0) -> None:
        super().__init__(cause, next_step)
        self.method = method
        self.code = code


class WrongState(CallFailed):
    """The object's state doesn't allow this: an image in use or disabled, a machine that runs or doesn't."""


class AddressTaken(CallFailed):
    """A network can't give this IP or MAC: outside its ranges, or in use (the frontend doesn't tell which)."""


class ImageFailed(TargetError):
    """OpenNebula couldn't make, keep or remove an image."""


class MachineFailed(TargetError):
    """A machine ended in a state that it can't leave by itself, or didn't come to the wanted one in time."""
