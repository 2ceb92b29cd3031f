"""The server behind `LabControl`, inside the control process."""

import hmac
import json
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

from pyVmomi import vmodl

from snapferry.lab.control import LabCounters, LabInventory, LabVmState
from snapferry.lab.host.errors import HostError
from snapferry.lab.https import Handler, HttpsServer
from snapferry.lab.opennebula import Frontend
from snapferry.lab.vcenter import VCenter
from snapferry.lab.vcenter.acts import ACTS, SOMEBODY, act
from snapferry.lab.vcenter.faults import Faults
from snapferry.lab.vcenter.hardware import nics_of
from snapferry.lab.vcenter.machine import Machine
from snapferry.lab.vcenter.power import switch_off, switch_on

MAX_REQUEST_BYTES = 1 << 20


class ControlService:
    """The methods of `LabControl`, one for one."""

    def __init__(self, vcenter: VCenter, frontend: Frontend) -> None:
        self._vcenter = vcenter
        self._frontend = frontend
        self.methods: dict[str, Callable[..., Any]] = {
            method.__name__: method
            for method in (
                self.digest, self.extents_digest, self.counters, self.inventory, self.power, self.power_on,
                self.power_off, self.last_sequence, self.expire_sessions, self.set_fault, self.clear_faults,
            )
        }  # fmt: skip

    def digest(self, vm_name: str, disk_index: int, snapshot: str | None) -> str:
        machine = self._vcenter.named(vm_name)
        which = _snapshot_id(machine, snapshot)
        return machine.host.client.digest(machine.moref, machine.disk_key(disk_index), which)["sha256"]

    def extents_digest(self, vm_name: str, disk_index: int, snapshot: str | None) -> str:
        machine = self._vcenter.named(vm_name)
        which = _snapshot_id(machine, snapshot)
        return machine.host.client.extents_digest(machine.moref, machine.disk_key(disk_index), which)["sha256"]

    def counters(self) -> LabCounters:
        names = {machine.moref: machine.lab.name for machine in self._vcenter.machines.values()}
        counted = [host.client.counters() for host in self._vcenter.hosts.values()]
        sent: dict[str, int] = {}
        for one in counted:
            for label, count in one["nfc_bytes"].items():
                moref, _, key = label.partition("/")
                sent[f"{names.get(moref, moref)}/{key}"] = count
        faults = [self._vcenter.faults.happened, self._frontend.faults(), *(one["faults"] for one in counted)]
        return LabCounters(
            nfc_bytes=sent,
            connections=sum(one["connections"] for one in counted),
            requests=sum(one["requests"] for one in counted),
            folder_bytes=self._vcenter.folder_bytes,
            calls=dict(self._vcenter.calls),
            one_calls=self._frontend.calls(),
            sessions=len(self._vcenter.sessions),
            faults=sum(map(Counter, faults), Counter()),
        )

    def inventory(self) -> LabInventory:
        state = self._frontend.state()
        return LabInventory(
            vms={machine.name: _state_of(machine) for machine in self._vcenter.machines.values()},
            **{name: tuple(state[name]) for name in ("images", "templates", "machines", "networks", "locks")},
            files=state["files"],
        )

    def power(self, vm_name: str) -> str:
        machine = self._vcenter.named(vm_name)
        return str(self._vcenter.store.get(machine.mo, "runtime").powerState)

    def power_on(self, vm_name: str) -> None:
        machine = self._vcenter.named(vm_name)
        with machine.exclusively():
            switch_on(self._vcenter, machine, SOMEBODY)

    def power_off(self, vm_name: str) -> None:
        machine = self._vcenter.named(vm_name)
        with machine.exclusively():
            switch_off(self._vcenter, machine, SOMEBODY)

    def last_sequence(self, vm_name: str) -> int:
        machine = self._vcenter.named(vm_name)
        return machine.host.client.last_write(machine.moref)

    def expire_sessions(self) -> int:
        return self._vcenter.sessions.end_all()

    def set_fault(self, name: str, arguments: dict[str, Any]) -> None:
        if name in ACTS and "method" not in arguments:
            act(self._vcenter, name, arguments)
        elif name in ACTS or name in Faults.ARGUMENTS:
            self._vcenter.faults.set(name, arguments)
        elif name.startswith("one_"):
            self._frontend.set_fault(name.removeprefix("one_"), **arguments)
        else:
            for host in self._vcenter.hosts.values():
                host.client.set_fault(name, arguments)

    def clear_faults(self) -> None:
        self._vcenter.faults.clear()
        self._frontend.clear_faults()
        for host in self._vcenter.hosts.values():
            host.client.clear_faults()


def _snapshot_id(machine: Machine, wanted: str | None) -> str | None:
    """The moref of a snapshot named by its name or moref. Raises KeyError."""
    if wanted is None:
        return None
    for node in machine.snapshots:
        if wanted in (node.name, node.mo._moId):
            return str(node.mo._moId)
    raise KeyError(wanted)


def _state_of(machine: Machine) -> LabVmState:
    config, runtime = machine.config, machine.vcenter.store.get(machine.mo, "runtime")
    return LabVmState(
        power=str(runtime.powerState),
        snapshots=tuple(node.name for node in machine.snapshots),
        change_tracking=config.changeTrackingEnabled,
        consolidation_needed=runtime.consolidationNeeded,
        nics_start_connected=tuple(nic.connectable.startConnected for nic in nics_of(config)),
        annotation=config.annotation,
        files=tuple(one["name"] for one in machine.host.client.files(machine.moref)),
    )


class ControlServer:
    """Serves a ControlService to who holds the token."""

    def __init__(self, service: ControlService, token: str, context: ssl.SSLContext) -> None:
        handler = type("ControlHandler", (_ControlHandler,), {"methods": service.methods, "token": token})
        self._server = HttpsServer(handler, context, "control")

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.port}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


class _ControlHandler(Handler):
    methods: dict[str, Callable[..., Any]]
    token: str

    def do_POST(self) -> None:
        data = self.read_body(MAX_REQUEST_BYTES)
        if data is None:
            return
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            self._answer(401, {"error": "the token is wrong"})
            return
        method = self.methods.get(self.path.removeprefix("/"))
        if method is None:
            self._answer(404, {"error": "there is no such method"})
            return
        try:
            self._answer(200, {"result": method(**json.loads(data or b"{}"))})
        except KeyError as error:
            self._answer(404, {"error": f"there is no {error}"})
        except (HostError, ValueError, TypeError, IndexError) as error:
            self._answer(400, {"error": str(error)})
        except vmodl.MethodFault as fault:
            self._answer(409, {"error": fault.msg})

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer, default=lambda model: model.model_dump(mode="json"))
        self.reply(status, body.encode(), "application/json")
