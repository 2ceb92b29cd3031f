"""Tickets of the NFC service, called as a client without its WSDL has to."""

import hashlib
import http.client
import re
import socket
import ssl
from typing import Any

import pytest
from pyVmomi import vim

from snapferry.lab import Lab

ENVELOPE = (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    '<{method} xmlns="urn:vim25"><_this type="{kind}">{this}</_this>{arguments}</{method}>'
    "</soapenv:Body></soapenv:Envelope>"
)


def call(
    si: Any, lab: Lab, method: str, arguments: str = "", kind: str = "NfcService", this: str = "nfcService"
) -> str:
    """The reply's text; any status."""
    ends = lab.endpoints
    context = ssl.create_default_context(cafile=ends.ca_file)
    connection = http.client.HTTPSConnection(ends.vcenter_host, ends.vcenter_port, timeout=10, context=context)
    body = ENVELOPE.format(method=method, kind=kind, this=this, arguments=arguments)
    headers = {"SOAPAction": '"urn:vim25/8.0.3.0"', "Cookie": si._stub.cookie or ""}
    connection.request("POST", "/sdk", body, headers)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def field(text: str, name: str) -> str:
    found = re.search(rf"<{name}>([^<]+)</{name}>", text)
    assert found, text
    return found[1]


def vm_argument(vm: Any) -> str:
    return f'<vm type="VirtualMachine">{vm._moId}</vm>'


def test_the_service_is_named_by_the_internal_content(si: Any, lab: Lab) -> None:
    text = call(si, lab, "RetrieveInternalContent", kind="ServiceInstance", this="ServiceInstance")
    assert re.search(r'<nfcService type="[^"]+">nfcService</nfcService>', text)


def test_a_ticket_names_the_hosts_port_and_certificate(si: Any, lab: Lab, web01: Any) -> None:
    text = call(si, lab, "NfcRandomAccessOpenReadonly", vm_argument(web01) + "<diskDeviceKey>2000</diskDeviceKey>")
    assert field(text, "service") == "vpxa-nfc"
    address = (field(text, "host"), int(field(text, "port")))
    context = ssl.create_default_context(cafile=lab.endpoints.ca_file)
    with socket.create_connection(address, timeout=10) as plain:
        assert plain.makefile("rb").readline().startswith(b"220 ")
        with context.wrap_socket(plain, server_hostname="esx1.lab.test") as tls:
            certificate = tls.getpeercert(binary_form=True)
    assert certificate
    thumbprint = hashlib.sha1(certificate, usedforsecurity=False).hexdigest().upper()
    assert field(text, "sslThumbprint").replace(":", "") == thumbprint


def test_every_ticket_is_another(si: Any, lab: Lab, web01: Any) -> None:
    tickets = {field(call(si, lab, "NfcGetVmFiles", vm_argument(web01)), "sessionId") for _ in range(3)}
    assert len(tickets) == 3


def test_a_disk_that_the_vm_has_not_gets_no_ticket(si: Any, lab: Lab, web01: Any) -> None:
    text = call(si, lab, "NfcRandomAccessOpenReadonly", vm_argument(web01) + "<diskDeviceKey>2042</diskDeviceKey>")
    assert "InvalidArgumentFault" in text
    assert "diskDeviceKey" in text


@pytest.mark.parametrize("method", ["NfcGetVmFiles", "NfcRandomAccessOpenReadonly"])
def test_tickets_need_their_privileges(connect: Any, lab: Lab, method: str, web01: Any) -> None:
    key = "<diskDeviceKey>2000</diskDeviceKey>" if method == "NfcRandomAccessOpenReadonly" else ""
    text = call(connect("looker"), lab, method, vm_argument(web01) + key)
    assert "NoPermissionFault" in text
    privilege = "GetVmFiles" if method == "NfcGetVmFiles" else "DiskRandomRead"
    assert field(text, "privilegeId") == f"VirtualMachine.Provisioning.{privilege}"


def test_tickets_need_a_session(si: Any, lab: Lab, web01: Any) -> None:
    class Nobody:
        _stub = type("Stub", (), {"cookie": None})

    assert "NotAuthenticatedFault" in call(Nobody(), lab, "NfcGetVmFiles", vm_argument(web01))
    assert vim.VirtualMachine(web01._moId, si._stub).name == "web01"


def test_what_is_no_soap_is_refused(si: Any, lab: Lab) -> None:
    assert "InvalidRequestFault" in call(si, lab, "NfcGetVmFiles", "<vm>")
    assert "MethodNotFoundFault" in call(si, lab, "NfcOpenAllDoors")
