"""The HTTPS side of the simulated vCenter: `/sdk`, and the versions that it speaks."""

import logging
import re
import ssl
from http.cookies import CookieError, SimpleCookie
from typing import Any

from pyVmomi import VmomiSupport, vmodl

from snapferry.lab.https import Handler, HttpsServer
from snapferry.lab.vcenter.folder import answer_folder
from snapferry.lab.vcenter.service import ConnectionDropped, VCenter
from snapferry.lab.vcenter.soap import (
    BadRequest,
    RequestReader,
    render_fault,
    render_internal_content,
    render_reply,
)

_log = logging.getLogger(__name__)

VERSIONS = ("8.0.3.0", "8.0.2.0", "8.0.1.0", "8.0.0.1", "8.0.0.0", "7.0.3.0", "7.0.0.0", "6.7.3", "6.7", "6.5")
"""Versions of the API, newest first; the client takes the newest that it knows, too."""

COOKIE = "vmware_soap_session"
MAX_REQUEST_BYTES = 16 << 20


def versions_document() -> bytes:
    """What `/sdk/vimServiceVersions.xml` says."""
    older = "".join(f"<version>{one}</version>" for one in VERSIONS[1:])
    return (
        '<?xml version="1.0" encoding="UTF-8"?><namespaces version="1.0"><namespace><name>urn:vim25</name>'
        f"<version>{VERSIONS[0]}</version><priorVersions>{older}</priorVersions></namespace></namespaces>"
    ).encode()


class VCenterServer:
    """Serves a VCenter on a free port of loopback."""

    def __init__(self, vcenter: VCenter, context: ssl.SSLContext) -> None:
        self._vcenter = vcenter
        handler = type("SoapHandler", (_SoapHandler,), {"vcenter": vcenter})
        self._server = HttpsServer(handler, context, "vcenter")

    @property
    def port(self) -> int:
        return self._server.port

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._vcenter.stop()
        self._server.stop()


class _SoapHandler(Handler):
    vcenter: VCenter

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/sdk/vimServiceVersions.xml":
            self.reply(200, versions_document(), "text/xml; charset=utf-8")
        elif self.path.startswith("/folder/"):
            answer_folder(self, self.vcenter, self._cookie(), COOKIE)
        else:
            self.reply(404, b"Not found\n", "text/plain")

    def do_POST(self) -> None:
        data = self.read_body(MAX_REQUEST_BYTES)
        if data is None:
            return
        if self.path.partition("?")[0].rstrip("/") != "/sdk":
            self.reply(404, b"Not found\n", "text/plain")
            return
        version = _version_of(self.headers.get("SOAPAction", ""))
        try:
            status, body, cookie = self._answer(data, version)
        except ConnectionDropped:
            self.close_connection = True
            return
        headers = {"Set-Cookie": f'{COOKIE}="{cookie}"; Path=/; HttpOnly; Secure;'} if cookie else {}
        self.reply(status, body, "text/xml; charset=utf-8", headers)

    def _answer(self, data: bytes, version: str) -> tuple[int, bytes, str | None]:
        try:
            request = RequestReader(version).read(data)
            value, opened = self.vcenter.answer(request, self._cookie())
            if request.method == "RetrieveInternalContent":
                return 200, render_internal_content(request.method), None
            assert request.info is not None
            return (
                200,
                render_reply(request.method, value, request.info.result, version),
                opened.cookie if opened else None,
            )
        except vmodl.MethodFault as fault:
            return 500, render_fault(fault, version), None
        except BadRequest as error:
            return (
                500,
                render_fault(vmodl.fault.InvalidRequest(msg=f"Unable to parse the request: {error}"), version),
                None,
            )
        except ConnectionDropped:
            raise
        except Exception as error:  # noqa: BLE001 (a fault of the lab is the client's to see, and the lab lives on)
            _log.exception("a call failed")
            return 500, render_fault(_internal(error), version), None

    def _cookie(self) -> str | None:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return None
        return found.value if found else None


def _internal(error: Exception) -> Any:
    return vmodl.fault.SystemError(reason=str(error), msg=f"A general system error occurred: {error}")


def _version_of(action: str) -> str:
    """pyVmomi's name of the version that a request is written in; the newest one where it doesn't say."""
    found = re.search(r"urn:vim25/([\d.]+)", action)
    wanted = f"vim25/{found[1]}" if found else ""
    version: str = VmomiSupport.versionMap.get(wanted) or VmomiSupport.versionMap[f"vim25/{VERSIONS[0]}"]
    return version
