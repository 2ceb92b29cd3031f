"""The wire: what is a call, who may make it, and how it is answered, byte for byte."""

import ssl
from http.client import HTTPSConnection
from typing import Any
from xmlrpc import client as xmlrpc

import pyone
import pytest
import requests


def post(site: Any, body: bytes, path: str = "/RPC2") -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(site.ca_file))
    connection = HTTPSConnection(
        "localhost", int(site.endpoint.split(":")[2].split("/")[0]), timeout=10, context=context
    )
    connection.request("POST", path, body, {"Content-Type": "text/xml"})
    response = connection.getresponse()
    return response.status, response.read()


def call(site: Any, method: str, *parameters: Any) -> bytes:
    return post(site, xmlrpc.dumps((parameters), method).encode())[1]


def lines(*rows: str) -> bytes:
    return ("\r\n".join(('<?xml version="1.0" encoding="UTF-8"?>', "<methodResponse>", *rows)) + "\r\n").encode()


def test_a_failure_has_status_200_and_five_elements(site: Any) -> None:
    status, body = post(site, xmlrpc.dumps(("oneadmin:opennebula", 999), "one.image.info").encode())
    assert status == 200
    assert body == lines(
        "<params>", "<param><value><array><data>", "<value><boolean>0</boolean></value>",
        "<value><string>[one.image.info] Error getting image [999].</string></value>", "<value><i4>1024</i4></value>",
        "<value><i4>999</i4></value>", "<value><i8>-1</i8></value>", "</data></array></value></param>", "</params>",
        "</methodResponse>",
    )  # fmt: skip


def test_an_unknown_method_is_a_fault(site: Any) -> None:
    assert call(site, "one.nosuch.method", "oneadmin:opennebula") == lines(
        "<fault>", "<value><struct>", "<member><name>faultCode</name>", "<value><i4>-506</i4></value></member>",
        "<member><name>faultString</name>",
        "<value><string>Method 'one.nosuch.method' not defined</string></value></member>", "</struct></value>",
        "</fault>", "</methodResponse>",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "text"),
    [(("abc",), "Parameter that is supposed to be integer is not"), ((), "Not enough parameters")],
)
def test_wrong_parameters_are_a_fault(one: Any, parameters: tuple[Any, ...], text: str) -> None:
    with pytest.raises(pyone.OneException, match=f"<Fault -501: '{text}'>"):
        one.image.info(*parameters)


def test_a_control_character_is_a_fault_that_quotes_it(one: Any) -> None:
    with pytest.raises(pyone.OneException, match=r"Fault -503.*Invalid token, starting 0 bytes in"):
        one.image.update(0, 'X="a\x01b"', 1)


def test_only_RPC2_answers(site: Any) -> None:
    assert post(site, b"<methodCall/>", "/RPC3")[0] == 404
    assert post(site, b"<methodCall/>", "/")[0] == 404


@pytest.mark.parametrize("session", ["oneadmin:wrong", "nobody:x", "oneadmin", ""])
def test_a_wrong_session_is_refused(site: Any, session: str) -> None:
    text = r"^\[one.system.version\] User couldn't be authenticated, aborting call.$"
    with pytest.raises(pyone.OneAuthenticationException, match=text):
        site.client(session).system.version()


def test_the_certificate_must_be_trusted(site: Any) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        pyone.OneServer(site.endpoint, session="oneadmin:opennebula").system.version()
    assert site.client().system.version() == "7.4.0"


def test_a_token_works_until_it_ends(site: Any, one: Any) -> None:
    lasting, taken_back = one.user.login("oneadmin", "", 3600, -1), one.user.login("oneadmin", "", -1, -1)
    short = one.user.login("oneadmin", "", 1, -1)
    for token in (lasting, taken_back, short):
        assert site.client(f"oneadmin:{token}").user.info(-1).ID == 0
    assert one.user.login("oneadmin", taken_back, 0, -1) == taken_back
    with pytest.raises(pyone.OneAuthenticationException):
        site.client(f"oneadmin:{taken_back}").system.version()
    site.until(lambda: refused(site, short))
    assert site.client(f"oneadmin:{lasting}").system.version()


def refused(site: Any, token: str) -> bool:
    try:
        site.client(f"oneadmin:{token}").system.version()
    except pyone.OneAuthenticationException:
        return True
    return False


def test_users_groups_hosts_and_configuration_are_listed(site: Any, one: Any) -> None:
    user = site.plain_user()
    assert [it.NAME for it in one.userpool.info().USER] == ["migrator", "oneadmin"]
    assert one.group.info(0).NAME == "oneadmin"
    assert [it.NAME for it in one.hostpool.info().HOST] == ["kvm2", "kvm1"]
    assert one.host.info(0).STATE == 2
    assert one.system.config().DEFAULT_DEVICE_PREFIX == ["sd"]
    assert user.hostpool.info().HOST == []
    with pytest.raises(pyone.OneAuthorizationException):
        user.system.config()


def test_faults_refuse_drop_and_delay(site: Any, one: Any) -> None:
    site.frontend.set_fault("refuse", method="image.info", code=0x0800, message="Not now")
    with pytest.raises(pyone.OneActionException, match="Not now"):
        one.image.info(0)
    site.frontend.set_fault("drop", method="system.version")
    with pytest.raises(requests.exceptions.ConnectionError):
        one.system.version()
    site.frontend.set_fault("drop_answer", method="image.allocate")
    with pytest.raises(requests.exceptions.ConnectionError):
        one.image.allocate("NAME=lost\nTYPE=OS\nSIZE=1\n", site.LOCAL)
    assert [it.NAME for it in one.imagepool.info(-2, -1, -1).IMAGE] == ["lost"]
    with pytest.raises(ValueError, match="no fault"):
        site.frontend.set_fault("nonsense")
    site.frontend.set_fault("refuse", times=None)
    site.frontend.clear_faults()
    assert one.system.version() == "7.4.0"


def test_a_frontend_that_is_down_answers_nothing_until_it_is_back(site: Any, one: Any) -> None:
    site.frontend.set_fault("down", seconds=60)
    for _ in range(2):
        with pytest.raises(requests.exceptions.ConnectionError):
            one.system.version()
    site.frontend.clear_faults()
    assert one.system.version() == "7.4.0"


def test_a_fault_lets_as_many_calls_pass_as_told(site: Any, one: Any) -> None:
    site.frontend.set_fault("drop", method="system.version", skip=2, times=1)
    assert [one.system.version() for _ in range(2)] == ["7.4.0"] * 2
    with pytest.raises(requests.exceptions.ConnectionError):
        one.system.version()
    assert one.system.version() == "7.4.0"


def test_somebody_wipes_or_edits_what_a_migration_noted(site: Any, one: Any) -> None:
    template = one.template.allocate("NAME=web01\nMEMORY=64\nSNAPFERRY=[ID=1]\n")
    image = site.image(one, name="web01-disk-0", more="SNAPFERRY_BASE=[STATE=warm]\n")
    site.frontend.set_fault("record_wiped", vm="web01", method="system.version")
    site.frontend.set_fault("record_edited", vm="web01", method="system.version")
    assert one.template.info(template).TEMPLATE["SNAPFERRY"] == {"ID": "1"}
    one.system.version()
    assert set(one.template.info(template).TEMPLATE) == {"MEMORY"}
    assert one.image.info(image).TEMPLATE["SNAPFERRY_BASE"]["CHANGE_ID"] == "yesterday's"
