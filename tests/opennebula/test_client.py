"""Calls end in time, go to the frontend only, and say what went wrong."""

import re
import threading
import time
import xmlrpc.client
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from pydantic import SecretStr

from snapferry.errors import Refused
from snapferry.lab.ca import CertificateAuthority
from snapferry.opennebula import CallFailed, CertificateNotTrusted, Unreachable, WrongPassword
from tests.opennebula.conftest import PASSWORD, MakeClient, Serve, World


def _reply(request: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def _answers(*values: object) -> bytes:
    return xmlrpc.client.dumps((list(values),), methodresponse=True).encode()


def test_a_call_brings_the_frontends_answer(world: World) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", world.client.version())
    user = world.client.whoami()
    assert (user.id, user.name, user.is_admin) == (0, "oneadmin", True)
    assert not world.plain_user().whoami().is_admin


def test_a_wrong_password_is_told_from_everything_else(world: World, client_of: MakeClient) -> None:
    with pytest.raises(WrongPassword) as caught:
        client_of(world.client.endpoint, secret=SecretStr("wrong-canary")).version()
    assert "wrong-canary" not in str(caught.value)


def test_an_answer_that_never_comes_ends_at_the_timeout(serve: Serve, client_of: MakeClient) -> None:
    over = threading.Event()
    endpoint = serve(lambda request, body: over.wait(20) and None)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"within 0\.3 s"):
        client_of(endpoint, timeout_seconds=0.3).version()
    assert time.monotonic() - began < 3
    over.set()


def test_an_answer_that_drips_ends_at_the_timeout(serve: Serve, client_of: MakeClient) -> None:
    over = threading.Event()

    def drip(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        while not over.wait(0.05):
            request.wfile.write(b" " * (64 << 10))

    began = time.monotonic()
    with pytest.raises(Unreachable, match="within"):
        client_of(serve(drip), timeout_seconds=0.4).version()
    assert time.monotonic() - began < 4
    over.set()


def test_a_frontend_that_is_down_is_unreachable(client_of: MakeClient) -> None:
    with pytest.raises(Unreachable, match="refused"):
        client_of("https://127.0.0.1:9/RPC2").version()


def test_no_password_goes_to_a_server_without_a_trusted_certificate(
    serve: Serve, client_of: MakeClient, tmp_path: Path
) -> None:
    seen: list[bytes] = []
    endpoint = serve(lambda request, body: seen.append(body))
    other = CertificateAuthority(tmp_path).file.read_text()
    for ca_pem in (other, None):
        with pytest.raises(CertificateNotTrusted, match="No password was sent"):
            client_of(endpoint, ca_pem=ca_pem).version()
    assert seen == []


def test_a_certificate_for_another_name_is_not_trusted(serve: Serve, client_of: MakeClient) -> None:
    endpoint = serve(lambda request, body: _reply(request, _answers(True, "7.4.0", 0)), host="127.0.0.2")
    with pytest.raises(CertificateNotTrusted, match=r"127\.0\.0\.2"):
        client_of(endpoint).version()


def test_switching_verification_off_is_loud(serve: Serve, client_of: MakeClient) -> None:
    endpoint = serve(lambda request, body: _reply(request, _answers(True, "7.4.0", 0)))
    with pytest.warns(UserWarning, match="NOT verified"):
        client = client_of(endpoint, ca_pem=None, verify=False)
    assert client.version() == "7.4.0"


def test_a_plain_connection_to_another_machine_is_loud(client_of: MakeClient) -> None:
    with pytest.warns(UserWarning, match="NOT encrypted"):
        client_of("http://one.example.org:2633/RPC2")


def test_proxies_of_the_environment_are_not_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert world.client.version()


def test_a_redirection_is_not_followed(serve: Serve, client_of: MakeClient) -> None:
    seen: list[bytes] = []
    elsewhere = serve(lambda request, body: seen.append(body))

    def redirect(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(307)
        request.send_header("Location", elsewhere)
        request.send_header("Content-Length", "0")
        request.end_headers()

    with pytest.raises(CallFailed, match="HTTP 307"):
        client_of(serve(redirect)).version()
    assert seen == []


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>hello</html>", b"<methodResponse>", _answers(True), _answers(True, "<A>", 0), b"\xff\xfe",
     xmlrpc.client.dumps(("text",), methodresponse=True).encode()],
)  # fmt: skip
def test_an_answer_that_isnt_opennebulas_is_named_as_such(serve: Serve, client_of: MakeClient, body: bytes) -> None:
    with pytest.raises(CallFailed, match="RPC2"):
        client_of(serve(lambda request, _: _reply(request, body))).version()


def test_a_server_error_counts_as_away(serve: Serve, client_of: MakeClient) -> None:
    with pytest.raises(Unreachable, match="HTTP 503"):
        client_of(serve(lambda request, body: _reply(request, b"", 503))).version()


def test_an_unknown_method_is_named(world: World) -> None:
    with pytest.raises(CallFailed, match=r"nosuch\.method"):
        world.client.call("nosuch.method")


def test_the_secret_stands_in_no_error_even_if_the_frontend_repeats_it(serve: Serve, client_of: MakeClient) -> None:
    fault = xmlrpc.client.dumps(xmlrpc.client.Fault(-503, f"bad token at {PASSWORD}")).encode()
    for body in (_answers(False, f"[one.x] no {PASSWORD}", 8192, -1), fault):
        with pytest.raises(CallFailed) as caught:
            client_of(serve(lambda request, _, body=body: _reply(request, body))).version()
        assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["", "localhost:2633", "ftp://x/RPC2", "https://user:pw@one/RPC2", "https://"])
def test_what_can_be_no_endpoint_is_refused(client_of: MakeClient, endpoint: str) -> None:
    with pytest.raises(Refused, match="endpoint") as caught:
        client_of(endpoint)
    assert "pw@" not in str(caught.value)


def test_the_path_of_the_endpoint_may_be_left_out(world: World, client_of: MakeClient) -> None:
    for suffix in ("", "/"):
        assert client_of(world.client.endpoint.removesuffix("/RPC2") + suffix).version()


def test_a_bad_ca_is_named_before_anything_is_sent(client_of: MakeClient) -> None:
    with pytest.raises(CertificateNotTrusted, match="PEM"):
        client_of("https://localhost/RPC2", ca_pem="no certificate")


def test_many_threads_may_use_one_client(world: World) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(world.client.version())) for _ in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(10)
    assert len(answers) == 12
