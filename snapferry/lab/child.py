"""A process of the lab that ends with its parent."""

import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
from multiprocessing.reduction import DupFd
from multiprocessing.util import Finalize
from typing import Any, Concatenate, ParamSpec, Self

from snapferry.errors import SnapferryError

STOP_SECONDS = 10.0
P = ParamSpec("P")


class LabFailed(SnapferryError):
    """A part of the lab didn't start or answer."""


class OpenFile:
    """A file descriptor that goes along as an argument of a child; the child closes its own."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Callable[[Any], Self], tuple[Any]]:
        return self._arrived, (DupFd(self.fd),)

    @classmethod
    def _arrived(cls, passed: Any) -> Self:
        return cls(passed.detach())


class Child:
    """A function run as a process.

    The child holds one end of a connection and ends when the other is closed: at `end`, or when this process ends in
    whatever way. It says that it is ready by sending one object.

    Args:
        context: how it starts; `ForkContext` in a process of one thread only.
        name: for messages.
        target: called in the child with its end of the connection, and the arguments.

    Raises:
        LabFailed: it can't be started.
    """

    def __init__(
        self,
        context: ForkContext | ForkServerContext | SpawnContext,
        name: str,
        target: Callable[Concatenate[Connection, P], None],
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> None:
        self._name = name
        self._connection, theirs = context.Pipe()
        os.register_at_fork(after_in_child=self._connection.close)  # a child that held it open would keep the others up
        Finalize(None, self._connection.close, exitpriority=0)  # else a process waits for a child that it didn't end
        self._process = context.Process(target=target, args=(theirs, *arguments), kwargs=keywords, name=name)
        try:
            self._process.start()
        except (OSError, EOFError) as error:
            self._connection.close()
            raise LabFailed(f"The {name} can't be started: {error}.", "Is TMPDIR there, and its path short?") from error
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def wait(self) -> None:
        """Waits, without a bound, until the child ends by itself."""
        self._process.join()

    def wait_ready(self, timeout_seconds: float) -> Any:
        """What the child sends once it is ready.

        Raises:
            LabFailed: it ended, or sent nothing in time; it has been ended by then.
        """
        try:
            if not self._connection.poll(timeout_seconds):
                raise LabFailed(f"The {self._name} wasn't ready in time.", "See the lab's log.")
            return self._connection.recv()
        except EOFError as error:
            status = self.end()
            raise LabFailed(
                f"The {self._name} ended before it was ready (status {status}).", "See the lab's log."
            ) from error
        except BaseException:
            self.end()
            raise

    def end(self) -> int:
        """Ends the child: by its connection, and by signals where that isn't enough. Repeatable.

        Returns:
            Its exit status; of a signal, the negative number.
        """
        self._connection.close()
        for strike in (None, self._process.terminate, self._process.kill):
            if strike is not None:
                strike()
            self._process.join(STOP_SECONDS)
            if self._process.exitcode is not None:
                return self._process.exitcode
        raise LabFailed(f"The {self._name} (process {self._process.pid}) can't be ended.", "End it by hand.")
