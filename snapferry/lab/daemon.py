"""The lab's control process: starts the hosts, serves vCenter, OpenNebula and the control interface.

Run by `snapferry.lab.up`: sends the endpoints once everything answers, and ends when the connection is closed.
"""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from snapferry.lab.ca import CertificateAuthority, write_private
from snapferry.lab.child import OpenFile
from snapferry.lab.config import Endpoints, LabConfig
from snapferry.lab.control_server import ControlServer, ControlService
from snapferry.lab.hosts import HostProcess
from snapferry.lab.opennebula import Frontend
from snapferry.lab.vcenter import ADMINISTRATOR, VCenter, VCenterServer

ONEADMIN = "oneadmin"
ENDPOINTS_FILE = "endpoints.json"

_log = logging.getLogger("snapferry.lab.daemon")


@contextmanager
def running(config: LabConfig, folder: Path) -> Iterator[Endpoints]:
    """The whole lab, in this process and its children, for as long as the context lasts."""
    with ExitStack() as stack:
        authority = CertificateAuthority(folder)
        hosts = _start_hosts(config, folder, authority, stack)
        context = authority.issue("localhost").server_context()
        one_password, token = secrets.token_urlsafe(18), secrets.token_urlsafe(24)
        frontend = Frontend(
            config.opennebula, folder / "opennebula", seed=config.seed, user=ONEADMIN, password=one_password
        )
        endpoint = frontend.start(context)
        stack.callback(frontend.stop)
        passwords = {user: secrets.token_urlsafe(18) for user in _users(config)}
        for host in hosts:
            host.wait_ready()
            host.client.set_credentials(ADMINISTRATOR, passwords[ADMINISTRATOR])
        vcenter = VCenter(config.vcenter, hosts, passwords, config.seed)
        vcenter.add_machines()
        server = VCenterServer(vcenter, context)
        stack.callback(server.stop)
        service = ControlService(vcenter, frontend)
        for fault in config.faults:
            service.set_fault(fault.name, fault.arguments)
        control = ControlServer(service, token, context)
        stack.callback(control.stop)
        server.start()
        control.start()
        yield Endpoints(
            pid=os.getpid(),
            ca_file=str(authority.file),
            vcenter_host="localhost",
            vcenter_port=server.port,
            vcenter_user=ADMINISTRATOR,
            vcenter_password=passwords[ADMINISTRATOR],
            users={name: password for name, password in passwords.items() if name != ADMINISTRATOR},
            opennebula_endpoint=endpoint,
            opennebula_user=ONEADMIN,
            opennebula_password=one_password,
            control_url=control.url,
            control_token=token,
            folder=str(folder),
        )


def _users(config: LabConfig) -> list[str]:
    return [ADMINISTRATOR, *(user.name for user in config.vcenter.users)]


def _start_hosts(
    config: LabConfig, folder: Path, authority: CertificateAuthority, stack: ExitStack
) -> list[HostProcess]:
    """Starts every host; they get ready side by side."""
    for datastore in config.vcenter.datastores:
        (folder / "datastores" / datastore.name).mkdir(mode=0o700, parents=True)
    (folder / "hosts").mkdir(mode=0o700)
    hosts = []
    for number, name in enumerate(config.vcenter.hosts):
        host = HostProcess(
            name,
            number,
            folder,
            authority,
            config.seed * 100 + number,
            nfc_fastlz=config.vcenter.nfc_fastlz,
        )
        stack.callback(host.end)
        hosts.append(host)
    return hosts


def run_lab(parent: Connection, config: LabConfig, folder: Path, log: OpenFile) -> None:
    """Runs the lab until the parent closes its end of the connection.

    Args:
        log: gets what is printed.
    """
    os.setsid()  # Ctrl-C is for the parent, who ends its children in order
    os.dup2(log.fd, 1)
    os.dup2(log.fd, 2)
    os.close(log.fd)
    os.chdir(folder)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with running(config, folder) as endpoints:
        write_private(folder / ENDPOINTS_FILE, endpoints.model_dump_json().encode() + b"\n")
        parent.send(endpoints)
        _log.info("ready")
        parent.poll(None)  # readable once it is closed: nothing is ever sent
    _log.info("ended")
