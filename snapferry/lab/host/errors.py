"""What a simulated host refuses, and why."""

from snapferry.errors import SnapferryError


class HostError(SnapferryError):
    """A request that the host can't grant; `kind` is what programs go by, the text is for people.

    Kinds: not_found, exists, invalid_power_state, file_fault, invalid_device_key, invalid_start, locked, bad_request.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
