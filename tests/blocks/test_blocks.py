"""The blocks that an operator configures."""

import subprocess
from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from snapferry.blocks import OpenNebula, VCenter, find_opennebula, find_vcenter
from snapferry.errors import Refused

VCENTER = {
    "SNAPFERRY_VCENTER_HOST": "vcenter.example.org",
    "SNAPFERRY_VCENTER_PORT": "8443",
    "SNAPFERRY_VCENTER_USER": "snapferry@vsphere.local",
    "SNAPFERRY_VCENTER_PASSWORD": "canary-of-vcenter",
}
OPENNEBULA = {
    "SNAPFERRY_OPENNEBULA_ENDPOINT": "https://one.example.org:2634/RPC2",
    "SNAPFERRY_OPENNEBULA_USER": "snapferry",
    "SNAPFERRY_OPENNEBULA_PASSWORD": "canary-of-opennebula",
}


class TestBlockStandards(BlockStandardTestSuite):
    """Prefect's own standards; a logo that can't be looked at would be skipped, so that is a failure."""

    @pytest.fixture(params=[VCenter, OpenNebula])
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        import PIL  # noqa: F401 - without it the suite would skip the logo

        return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ca")
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    subject = ["-subj", "/CN=A CA", "-nodes", "-days", "1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", *files, *subject], check=True, capture_output=True
    )
    return (folder / "ca.pem").read_text()


def vcenter(**changes: object) -> VCenter:
    values = {"host": "vc", "user": "me", "password": SecretStr("canary")}
    return VCenter.model_validate(values | changes)


def test_a_ca_pasted_into_one_line_is_mended(certificate: str) -> None:
    assert vcenter(ca=certificate.replace("\n", " ")).ca == certificate


def test_two_certificates_are_both_kept(certificate: str) -> None:
    assert vcenter(ca=f"{certificate}\n# the second\n{certificate}").ca == certificate * 2


def test_a_ca_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(ValidationError, match="no certificate is in it"):
        vcenter(ca="/etc/ssl/ca.pem")


@pytest.mark.parametrize("pin", ["AA:" * 31 + "AA", "ab" * 32])
def test_a_pin_is_taken_with_colons_and_without(pin: str) -> None:
    assert vcenter(certificate_sha256=pin).certificate_sha256 == pin


@pytest.mark.parametrize("host", ["vcenter.example.org:8443", "https://vcenter.example.org"])
def test_a_host_is_a_host_alone(host: str) -> None:
    with pytest.raises(ValidationError, match="the port has a field of its own"):
        VCenter(host=host, user="snapferry", password=SecretStr("secret"))


def test_a_sha1_pin_is_refused() -> None:
    with pytest.raises(ValidationError):
        vcenter(certificate_sha256="AA:" * 19 + "AA")


def test_the_environment_describes_a_vcenter(tmp_path: Path, certificate: str) -> None:
    (tmp_path / "ca.pem").write_text(certificate)
    block = VCenter.from_environment(VCENTER | {"SNAPFERRY_VCENTER_CA": str(tmp_path / "ca.pem")})
    assert block is not None
    assert (block.host, block.port, block.user) == ("vcenter.example.org", 8443, "snapferry@vsphere.local")
    assert block.password.get_secret_value() == "canary-of-vcenter"
    assert block.ca == certificate
    assert block.verify


def test_the_environment_describes_an_opennebula(certificate: str) -> None:
    block = OpenNebula.from_environment(OPENNEBULA | {"SNAPFERRY_OPENNEBULA_CA": certificate})
    assert block is not None
    assert (block.endpoint, block.user) == ("https://one.example.org:2634/RPC2", "snapferry")
    assert block.password.get_secret_value() == "canary-of-opennebula"
    assert block.ca == certificate


def test_no_block_shows_its_password() -> None:
    blocks = [VCenter.from_environment(VCENTER), OpenNebula.from_environment(OPENNEBULA)]
    for block in blocks:
        assert block is not None
        assert "canary" not in repr(block)
        assert "canary" not in block.model_dump_json()


def test_the_environment_does_where_no_prefect_is_configured(without_prefect: None) -> None:
    assert find_vcenter(environment=VCENTER).host == "vcenter.example.org"
    assert find_opennebula(environment=OPENNEBULA).user == "snapferry"


def test_without_block_and_environment_it_is_said_what_to_set(without_prefect: None) -> None:
    with pytest.raises(Refused, match=r"no block VCenter named 'vc1'.*SNAPFERRY_VCENTER_HOST"):
        find_vcenter("vc1", environment={})
    with pytest.raises(Refused, match=r"no block OpenNebula named 'one1'.*SNAPFERRY_OPENNEBULA_ENDPOINT"):
        find_opennebula("one1", environment={})


def test_a_mistake_in_the_environment_is_named_without_its_values(without_prefect: None) -> None:
    bad = {name: value for name, value in VCENTER.items() if not name.endswith("USER")} | {
        "SNAPFERRY_VCENTER_PORT": "x"
    }
    with pytest.raises(Refused) as caught:
        find_vcenter(environment=bad)
    assert "port" in str(caught.value)
    assert "user" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_ca_file_that_is_missing_is_named(without_prefect: None) -> None:
    with pytest.raises(Refused, match=r"/nowhere/ca\.pem"):
        find_vcenter(environment=VCENTER | {"SNAPFERRY_VCENTER_CA": "/nowhere/ca.pem"})


def test_a_server_that_is_down_is_no_reason_to_take_the_environment(dead_prefect: str) -> None:
    with pytest.raises(Refused, match=f"Prefect at {dead_prefect} doesn't answer"):
        find_vcenter(environment=VCENTER)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:4200/api", "localhost:4200/api", "http:/host/api", "http://host:port/api"]
)
def test_an_address_that_is_none_is_named_with_an_example(address: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(Refused, match=r"is no address.*http://127\.0\.0\.1:4200/api"),
    ):
        find_vcenter(environment=VCENTER)


@pytest.mark.slow
def test_a_block_that_prefect_knows_goes_before_the_environment(prefect_api: str) -> None:
    vcenter(host="from-the-block").save("vcenter-of-a-test", overwrite=True)
    assert find_vcenter("vcenter-of-a-test", environment=VCENTER).host == "from-the-block"
    assert find_vcenter("another", environment=VCENTER).host == "vcenter.example.org"


@pytest.mark.slow
def test_a_block_comes_back_with_its_secret_and_its_type(prefect_api: str) -> None:
    """A data: logo on the server would end here: Prefect's client can't read it back."""
    block = OpenNebula(endpoint="https://one/RPC2", user="me", password=SecretStr("canary"))
    block.save("one-of-a-test", overwrite=True)
    loaded = OpenNebula.load("one-of-a-test")
    assert loaded.password.get_secret_value() == "canary"
    assert loaded == block


@pytest.mark.slow
def test_a_server_whose_address_lacks_its_path_is_named(prefect_api: str) -> None:
    """Prefect's own UI answers every question there with its page."""
    with (
        temporary_settings({PREFECT_API_URL: prefect_api.removesuffix("/api")}),
        pytest.raises(Refused, match="isn't Prefect's API"),
    ):
        find_vcenter(environment=VCENTER)
