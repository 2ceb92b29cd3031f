"""What the frontend answers when it refuses: codes and texts as a 7.4 frontend has them."""

from enum import IntEnum


class Code(IntEnum):
    """The third element of a failed answer."""

    AUTHENTICATION = 0x0100
    AUTHORIZATION = 0x0200
    NO_EXISTS = 0x0400
    ACTION = 0x0800
    API = 0x1000
    INTERNAL = 0x2000
    ALLOCATE = 0x4000


class OneError(Exception):
    """A refused call; it is answered with HTTP 200 and `[false, message, code, id, -1]`."""

    def __init__(self, code: Code, message: str, object_id: int = -1) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.object_id = object_id


class CallFault(Exception):
    """A call that isn't one: answered as an XML-RPC fault."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
