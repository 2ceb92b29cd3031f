"""`/folder` of the simulated vCenter: files of datastores by range, as a host would give them away right now."""

import base64
import binascii
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from pyVmomi import vim

from snapferry.lab.host.errors import HostError
from snapferry.lab.https import Handler

if TYPE_CHECKING:
    from snapferry.lab.vcenter.service import VCenter
    from snapferry.lab.vcenter.sessions import Session

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK_BYTES = 256 << 10
_PRIVILEGES = ("Datastore.Browse", "Datastore.FileManagement")
_CUT_AFTER_BYTES = 100_000


def answer_folder(handler: Handler, vcenter: "VCenter", cookie: str | None, cookie_name: str) -> None:
    """Answers one GET below `/folder/`: the password once, then the session's cookie."""
    opened: Session | None = None
    session = None if vcenter.faults.take("folder_session") else vcenter.sessions.find(cookie)
    if session is None:
        session = opened = _log_in(vcenter, handler.headers.get("Authorization", ""))
    if session is None:
        handler.reply(HTTPStatus.UNAUTHORIZED, b"", "text/plain", {"WWW-Authenticate": 'Basic realm="VMware"'})
        return
    headers = {"Set-Cookie": f'{cookie_name}="{opened.cookie}"; Path=/; HttpOnly; Secure;'} if opened else {}
    if failure := vcenter.faults.take("folder_status"):
        handler.reply(int(failure.get("status", 503)), b"", "text/plain", headers)
        return
    url = urlsplit(handler.path)
    query = parse_qs(url.query)
    datacenter = "/".join(part for part in (vcenter.config.datacenter_folder, vcenter.config.datacenter) if part)
    if not all(session.account.may(one) for one in _PRIVILEGES) or query.get("dcPath") != [datacenter]:
        handler.reply(HTTPStatus.NOT_FOUND, b"", "text/plain", headers)
        return
    store, path = query.get("dsName", [""])[0], unquote(url.path.removeprefix("/folder/"))
    try:
        found = [
            Path(host.client.file_path(store, path)) for host in vcenter.hosts.values()
        ]  # any of them may run its VM
    except HostError as error:
        locked = error.kind == "locked"
        status = HTTPStatus.INTERNAL_SERVER_ERROR if locked else HTTPStatus.NOT_FOUND
        handler.reply(status, b"", "text/plain", headers)
        return
    _send(handler, vcenter, found[0], headers)


def _log_in(vcenter: "VCenter", authorization: str) -> "Session | None":
    scheme, _, token = authorization.partition(" ")
    try:
        user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        return vcenter.sessions.login(user, password) if scheme.lower() == "basic" else None
    except (binascii.Error, UnicodeDecodeError, vim.fault.InvalidLogin):
        return None


def _send(handler: Handler, vcenter: "VCenter", path: Path, headers: dict[str, str]) -> None:
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        start, end = 0, size
        asked = _RANGE.fullmatch(handler.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            end = min(int(asked[2]) + 1, size) if asked[2] else size
            if start >= end:
                headers |= {"Content-Range": f"bytes */{size}"}
                handler.reply(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", "text/plain", headers)
                return
            headers |= {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        handler.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        for name, value in (headers | {"Content-Length": str(end - start)}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.flush()
        file.seek(start)
        cut = vcenter.faults.take("folder_cut") if end - start > _CUT_AFTER_BYTES else None
        if cut:
            end = start + int(cut.get("after_bytes", _CUT_AFTER_BYTES))
        if stall := vcenter.faults.take("folder_stall"):
            vcenter.stop_event.wait(float(stall.get("seconds", 60)))
        while start < end and (data := file.read(min(_CHUNK_BYTES, end - start))):
            handler.wfile.write(data)
            start += len(data)
        vcenter.folder_bytes += start - int(asked[1] if asked else 0)
        if cut:
            handler.wfile.flush()
            handler.close_connection = True
