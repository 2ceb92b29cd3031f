"""The control interface of a host process: `HostService` over a Unix socket, a JSON object a line each way."""

import contextlib
import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from snapferry.lab.host.answers import (
    Chains,
    ChangedAreas,
    CounterValues,
    CreatedDisk,
    CreatedSnapshot,
    CreatedVm,
    Digest,
    FolderFile,
    NewDisk,
    PoweredOff,
    Tracking,
)
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.service import HostService


class RpcServer:
    """Serves a host on a Unix socket that only this user reaches, until `close`."""

    def __init__(self, service: HostService, path: Path) -> None:
        self._service = service
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="rpc-accept", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="rpc", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
            for line in stream:
                stream.write(json.dumps(self._answer(line)).encode() + b"\n")
                stream.flush()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if request["method"] not in _METHODS:
                raise HostError("bad_request", f"There is no method {request['method']}.")
            return {"result": getattr(self._service, request["method"])(**request["arguments"])}
        except HostError as error:
            return {"error": {"kind": error.kind, "message": error.cause}}
        except Exception as error:  # noqa: BLE001 (whatever fails in a call is the caller's to hear, and the host lives on)
            return {"error": {"kind": "internal", "message": f"{type(error).__name__}: {error}"}}


def serve(service: HostService, unix_socket_path: Path) -> RpcServer:
    """Starts to serve; returns at once."""
    return RpcServer(service, unix_socket_path)


class HostClient:
    """A host process as seen from the control process; the methods of `HostService`, from any thread.

    Every call may raise HostError: what the host refused, `internal` for a fault in the host, `unreachable` where it
    has gone or didn't answer within `timeout_seconds`.
    """

    def __init__(self, unix_socket_path: Path | str, timeout_seconds: float = 600) -> None:
        self._path = str(unix_socket_path)
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []

    def create_vm(
        self,
        vm_id: str,
        datastore: str,
        folder: str,
        name: str,
        disks: Sequence[NewDisk],
        workload: dict[str, Any],
        seed: int,
    ) -> CreatedVm:
        arguments = {"vm_id": vm_id, "datastore": datastore, "folder": folder, "name": name}
        answer = self._call("create_vm", **arguments, disks=list(disks), workload=workload, seed=seed)
        return cast(CreatedVm, answer)

    def add_disk(self, vm_id: str, new: NewDisk, seed: int) -> CreatedDisk:
        return cast(CreatedDisk, self._call("add_disk", vm_id=vm_id, new=new, seed=seed))

    def grow_disk(self, vm_id: str, key: int, capacity_bytes: int) -> None:
        self._call("grow_disk", vm_id=vm_id, key=key, capacity_bytes=capacity_bytes)

    def remove_disk(self, vm_id: str, key: int, destroy: bool) -> None:
        self._call("remove_disk", vm_id=vm_id, key=key, destroy=destroy)

    def destroy_vm(self, vm_id: str) -> None:
        self._call("destroy_vm", vm_id=vm_id)

    def power_on(self, vm_id: str) -> None:
        self._call("power_on", vm_id=vm_id)

    def last_write(self, vm_id: str) -> int:
        return cast(int, self._call("last_write", vm_id=vm_id))

    def power_off(self, vm_id: str) -> PoweredOff:
        return cast(PoweredOff, self._call("power_off", vm_id=vm_id))

    def files(self, vm_id: str) -> list[FolderFile]:
        return cast(list[FolderFile], self._call("files", vm_id=vm_id))

    def file_path(self, datastore: str, path: str) -> str:
        return cast(str, self._call("file_path", datastore=datastore, path=path))

    def used_bytes(self, datastore: str) -> int:
        return cast(int, self._call("used_bytes", datastore=datastore))

    def free_bytes(self, datastore: str, capacity_bytes: int) -> int:
        return cast(int, self._call("free_bytes", datastore=datastore, capacity_bytes=capacity_bytes))

    def revert(self, vm_id: str, snapshot_id: str) -> CreatedSnapshot:
        return cast(CreatedSnapshot, self._call("revert", vm_id=vm_id, snapshot_id=snapshot_id))

    def rename_files(self, vm_id: str, stem: str) -> Chains:
        return cast(Chains, self._call("rename_files", vm_id=vm_id, stem=stem))

    def guest_unmaps(self, vm_id: str, share: float) -> None:
        self._call("guest_unmaps", vm_id=vm_id, share=share)

    def create_snapshot(self, vm_id: str, snapshot_id: str) -> CreatedSnapshot:
        return cast(CreatedSnapshot, self._call("create_snapshot", vm_id=vm_id, snapshot_id=snapshot_id))

    def remove_snapshot(self, vm_id: str, snapshot_id: str) -> Chains:
        return cast(Chains, self._call("remove_snapshot", vm_id=vm_id, snapshot_id=snapshot_id))

    def set_change_tracking(self, vm_id: str, enabled: bool, immediate: bool) -> None:
        self._call("set_change_tracking", vm_id=vm_id, enabled=enabled, immediate=immediate)

    def change_tracking(self, vm_id: str) -> Tracking:
        return cast(Tracking, self._call("change_tracking", vm_id=vm_id))

    def changed_areas(
        self, vm_id: str, key: int, snapshot_id: str | None, change_id: str, start: int, max_extents: int
    ) -> ChangedAreas:
        arguments = {"vm_id": vm_id, "key": key, "snapshot_id": snapshot_id, "change_id": change_id}
        answer = self._call("changed_areas", **arguments, start=start, max_extents=max_extents)
        return cast(ChangedAreas, answer)

    def digest(self, vm_id: str, key: int, snapshot_id: str | None = None) -> Digest:
        return cast(Digest, self._call("digest", vm_id=vm_id, key=key, snapshot_id=snapshot_id))

    def extents_digest(self, vm_id: str, key: int, snapshot_id: str | None = None) -> Digest:
        return cast(Digest, self._call("extents_digest", vm_id=vm_id, key=key, snapshot_id=snapshot_id))

    def open_ticket(self, ticket: str, vm_id: str, key: int | None) -> None:
        self._call("open_ticket", ticket=ticket, vm_id=vm_id, key=key)

    def open_export(self, lease: str, vm_id: str, snapshot_id: str | None, disks: dict[str, int]) -> None:
        self._call("open_export", lease=lease, vm_id=vm_id, snapshot_id=snapshot_id, disks=disks)

    def close_export(self, lease: str) -> None:
        self._call("close_export", lease=lease)

    def set_credentials(self, user: str, password: str) -> None:
        self._call("set_credentials", user=user, password=password)

    def counters(self) -> CounterValues:
        return cast(CounterValues, self._call("counters"))

    def set_fault(self, name: str, arguments: dict[str, Any]) -> None:
        self._call("set_fault", name=name, arguments=arguments)

    def clear_faults(self) -> None:
        self._call("clear_faults")

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _call(self, method: str, **arguments: Any) -> Any:
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else self._connect()
            try:
                answer = _exchange(connection, {"method": method, "arguments": arguments})
            except BaseException:
                connection.close()
                raise
        except (OSError, ValueError) as error:
            raise HostError("unreachable", f"The host process at {self._path} doesn't answer: {error}.") from error
        with self._lock:
            self._idle.append(connection)
        if "error" in answer:
            raise HostError(answer["error"]["kind"], answer["error"]["message"])
        return answer["result"]

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self._timeout_seconds)
        connection.connect(self._path)
        return connection


# What the client offers is what the server lets in.
_METHODS = frozenset(name for name in vars(HostClient) if not name.startswith("_") and hasattr(HostService, name))


def _exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(request).encode() + b"\n")
    answer = bytearray()
    while not answer.endswith(b"\n"):
        data = connection.recv(1 << 20)
        if not data:
            raise ConnectionError("the connection was closed")
        answer += data
    return cast(dict[str, Any], json.loads(answer))
