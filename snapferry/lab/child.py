"""A process of the lab that ends with its parent."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from snapferry.errors import SnapferryError

STOP_SECONDS = 10.0


class LabFailed(SnapferryError):
    """A part of the lab didn't start or answer."""


class Child:
    """A Python module run as a process.

    The child holds the read end of a pipe as its stdin and ends when that closes: at `end`, or when this process dies
    in whatever way. It says that it is ready by one line of JSON.

    Args:
        module: to run with `python -m`.
        first_line: JSON that the child reads first; for what must not stand on a command line.
        errors: where its stderr goes.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], errors: IO[bytes] | None = None, cwd: Path | None = None,
        first_line: Any = None,
    ) -> None:  # fmt: skip
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=cwd,
            start_new_session=True,  # Ctrl-C is for the parent, who ends its children in order
        )
        if first_line is not None:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(first_line).encode() + b"\n")
                self._process.stdin.flush()
            except BrokenPipeError as error:
                self.end()
                raise LabFailed(f"{module} ended at once.", "See the lab's log.") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Waits, without a bound, until the child ends by itself; its exit status."""
        return self._process.wait()

    def wait_ready(self, timeout_seconds: float) -> dict[str, Any]:
        """The line of JSON that the child prints once it is ready.

        Raises:
            LabFailed: it ended, or said nothing in time; it has been ended by then.
        """
        try:
            line = self._read_line(time.monotonic() + timeout_seconds)
        except BaseException:
            self.end()
            raise
        if line is None:
            status = self.end()
            raise LabFailed(f"{self._name} ended before it was ready (status {status}).", "See the lab's log.")
        found: dict[str, Any] = json.loads(line)
        return found

    def _read_line(self, deadline: float) -> bytes | None:
        assert self._process.stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise LabFailed(f"{self._name} wasn't ready in time.", "See the lab's log.")
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    return None
                line += piece
        return line

    def end(self) -> int:
        """Ends the child: by its stdin, and by signals where that isn't enough. Repeatable."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        for signal_number in (None, signal.SIGTERM, signal.SIGKILL):
            if signal_number is not None:
                self._process.send_signal(signal_number)
            try:
                return self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        raise LabFailed(f"{self._name} (process {self.pid}) can't be ended.", "End it by hand.")
