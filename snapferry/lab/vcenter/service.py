"""The simulated vCenter: its state, and how a call is let in and answered."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from pyVmomi import VmomiSupport, vim, vmodl

from snapferry.lab.config import LabVCenter, LabVm
from snapferry.lab.host.errors import HostError
from snapferry.lab.hosts import HostProcess
from snapferry.lab.kinds import KindName
from snapferry.lab.vcenter import (
    events,
    leases,
    nfc,
    power,
    properties,
    reconfigure,
    search,
    snapshots,
    updates,
    views,
)
from snapferry.lab.vcenter.acts import ACTS, act
from snapferry.lab.vcenter.authorization import add_authorization, require
from snapferry.lab.vcenter.calls import HANDLERS, Call, answers
from snapferry.lab.vcenter.events import Events
from snapferry.lab.vcenter.faults import Faults, fault_of_host, make_fault
from snapferry.lab.vcenter.inventory import (
    PRODUCT_BUILD,
    PRODUCT_VERSION,
    Site,
    add_folder,
    build_site,
    children,
    encode_name,
    seeded_uuid,
)
from snapferry.lab.vcenter.machine import Machine
from snapferry.lab.vcenter.sessions import Account, Session, Sessions
from snapferry.lab.vcenter.soap import Request, not_found, reference
from snapferry.lab.vcenter.store import Store
from snapferry.lab.vcenter.tasks import Tasks

ADMINISTRATOR = "administrator@vsphere.local"

ANSWERING = (events, leases, nfc, power, properties, reconfigure, search, snapshots, updates, views)
"""The modules whose functions answer calls; they register themselves."""

_ANONYMOUS = {"Login", "RetrieveServiceContent"}
_ANONYMOUS_OBJECTS = {"ServiceInstance", "SessionManager"}


class ConnectionDropped(Exception):
    """The client gets no answer to this call."""


class VCenter:
    """One vCenter with its inventory, sessions, tasks and events.

    Args:
        passwords: of every user, the administrator included.
    """

    def __init__(self, config: LabVCenter, hosts: list[HostProcess], passwords: dict[str, str], seed: int) -> None:
        self.config = config
        self.hosts = {host.name: host for host in hosts}
        self.seed = seed
        self.store = Store()
        self.faults = Faults()
        self.events = Events(self.store)
        self.tasks = Tasks(self.store)
        self.stop_event = threading.Event()
        self.calls: Counter[str] = Counter()
        self.folder_bytes = 0
        """Served below `/folder`."""
        accounts = {ADMINISTRATOR: Account(ADMINISTRATOR, passwords[ADMINISTRATOR], None)}
        for user in config.users:
            accounts[user.name] = Account(user.name, passwords[user.name], frozenset(user.privileges))
        self.sessions = Sessions(accounts, config.session_idle_seconds, self.store)
        self.machines: dict[str, Machine] = {}
        self._folders: set[tuple[str, str]] = set()
        self._kinds = {one.name: one.kind for one in config.datastores}
        self._lock = threading.Lock()
        self.site: Site = build_site(self.store, config, hosts, self._free_bytes, seed)
        self.root = self.site.root
        self._add_services()

    # Its contents --------------------------------------------------------------------------------------------------

    def add_machines(self) -> None:
        """Creates the VMs of the configuration, every host side by side, and then switches on those that shall run."""
        folders = {vm.folder: self._vm_folder(vm.folder) for vm in self.config.vms}
        by_host: dict[str, list[LabVm]] = {}
        for vm in self.config.vms:
            by_host.setdefault(vm.host or self.config.hosts[0], []).append(vm)

        def create(name: str) -> None:
            for vm in by_host[name]:
                machine = Machine(self, vm, self.hosts[name], folders[vm.folder])
                with self._lock:
                    self.machines[machine.moref] = machine

        with ThreadPoolExecutor(max(1, len(by_host))) as pool:
            list(pool.map(create, by_host))
        for machine in self.machines.values():
            if machine.lab.power == "on":
                with machine.exclusively():
                    power.switch_on(self, machine, ADMINISTRATOR)

    def machine(self, mo: Any) -> Machine:
        """The VM behind a managed object. Raises ManagedObjectNotFound."""
        try:
            return self.machines[mo._moId]
        except KeyError:
            raise not_found(mo) from None

    def named(self, name: str) -> Machine:
        """The VM of that name, as it is now or as the lab was configured. Raises KeyError."""
        for machine in self.machines.values():
            if name in (machine.lab.name, machine.name):
                return machine
        raise KeyError(name)

    def take_folder(self, datastores: set[str], wanted: str) -> str:
        """A folder's name that no VM has yet on any of these datastores."""
        with self._lock:
            name, number = wanted, 0
            while any((one, name) in self._folders for one in datastores):
                number += 1
                name = f"{wanted}_{number}"
            self._folders |= {(one, name) for one in datastores}
            return name

    def kind_of(self, datastore: str) -> KindName:
        """The kind of the datastore of that name."""
        return self._kinds[datastore]

    def _vm_folder(self, path: str) -> Any:
        found = self.site.vm_folder
        for part in filter(None, path.split("/")):
            below = {self.store.get(one, "name"): one for one in children(self.store, found)}
            found = below.get(encode_name(part)) or add_folder(
                self.store, found, part, "group-v", ["Folder", "VirtualMachine"]
            )
        return found

    def _free_bytes(self, datastore: str, capacity_bytes: int) -> int:
        return next(iter(self.hosts.values())).client.free_bytes(datastore, capacity_bytes)

    def _add_services(self) -> None:
        store = self.store
        about = vim.AboutInfo(
            name="VMware vCenter Server",
            fullName=f"VMware vCenter Server {PRODUCT_VERSION} build-{PRODUCT_BUILD} (lab)",
            vendor="VMware, Inc.",
            version=PRODUCT_VERSION,
            build=PRODUCT_BUILD,
            osType="linux-x64",
            productLineId="vpx",
            apiType="VirtualCenter",
            apiVersion="8.0.3.0",
            instanceUuid=seeded_uuid(self.seed, "vcenter"),
        )
        content = vim.ServiceInstanceContent(
            rootFolder=self.root,
            about=about,
            propertyCollector=store.add(vmodl.query.PropertyCollector("propertyCollector"), filter=[]),
            viewManager=store.add(vim.view.ViewManager("ViewManager"), viewList=[]),
            searchIndex=store.add(vim.SearchIndex("SearchIndex")),
            eventManager=store.add(vim.event.EventManager("EventManager"), latestEvent=self.events.latest),
            taskManager=store.add(vim.TaskManager("TaskManager"), recentTask=[], maxCollector=1),
            authorizationManager=add_authorization(store),
            sessionManager=store.add(vim.SessionManager("SessionManager"), sessionList=self._session_list),
        )
        store.add(vim.ServiceInstance("ServiceInstance"), content=content, capability=vim.Capability())
        store.add(VmomiSupport.ManagedObject("nfcService"))

    def _session_list(self) -> Any:
        return vim.UserSession.Array([one.describe() for one in self.sessions.every()])

    # Calls ---------------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        return self.stop_event.is_set()

    def stop(self) -> None:
        """Wakes every waiting client; nothing is answered any more."""
        self.stop_event.set()
        with self.store.condition:
            self.store.condition.notify_all()

    def answer(self, request: Request, cookie: str | None) -> tuple[Any, Session | None]:
        """Carries a call out; returns its result, and the session where one was opened.

        Raises:
            vmodl.MethodFault: what vCenter would answer with.
            ConnectionDropped: as the lab was told to.
        """
        self.calls[request.method] += 1
        handler = HANDLERS.get(request.method)
        this = self.store.find(request.this)
        named = this or reference(request.this_type, request.this)
        if request.info is None or handler is None:
            raise vmodl.fault.MethodNotFound(receiver=named, method=request.method, msg="The lab has no such method.")
        call = Call(self, request.method, request.info, named, self.sessions.find(cookie), request.arguments)
        if call.session is None and not self._is_anonymous(request):
            raise vim.fault.NotAuthenticated(
                object=named, privilegeId="System.View", msg="The session is not authenticated."
            )
        if this is None:
            raise not_found(named)
        if call.session is not None and request.info.privilege is not None:
            require(call, this, request.info.privilege)
        self._act_on_demand(request.method)
        self._fail_on_demand(request.method, call)
        try:
            value = handler(call)
        except HostError as error:
            raise fault_of_host(error) from error
        if self.faults.take("drop", method=request.method, when="after"):
            raise ConnectionDropped
        return value, call.opened

    def _is_anonymous(self, request: Request) -> bool:
        return request.method in _ANONYMOUS or (request.method == "Fetch" and request.this in _ANONYMOUS_OBJECTS)

    def _act_on_demand(self, method: str) -> None:
        """Does what waits for this call."""
        for name in ACTS:
            arguments = self.faults.take(name, method=method)
            if arguments is not None:
                act(self, name, arguments)

    def _fail_on_demand(self, method: str, call: Call) -> None:
        slow = self.faults.take("slow", method=method)
        if slow:
            self.stop_event.wait(float(slow.get("seconds", 1)))
        if call.session is not None and self.faults.take("session", method=method):
            self.sessions.end(call.session)
            raise vim.fault.NotAuthenticated(
                object=call.this, privilegeId="System.View", msg="The session is not authenticated."
            )
        if self.faults.take("drop", method=method, when="before"):
            raise ConnectionDropped
        failing = self.faults.take("method", method=method)
        if failing:
            raise make_fault(str(failing["fault"]), str(failing.get("message", "")))


@answers("RetrieveServiceContent")
def _content(call: Call) -> Any:
    return call.vcenter.store.get(call.this, "content")


@answers("CurrentTime")
def _current_time(_call: Call) -> datetime:
    return datetime.now(UTC)
