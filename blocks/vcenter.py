"""The block `VCenter`: where a migration's source is, and who asks it."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from prefect.blocks.core import Block
from prefect.client.schemas.objects import BlockType
from pydantic import Field, SecretStr, field_validator

from snapferry.blocks.certificates import mend_pem, read_pem
from snapferry.blocks.logo import LOGO, block_type
from snapferry.vsphere import Session, VCenterLogin


class VCenter(Block):
    """Where a migration's source is: one vCenter, and the user whom Snapferry logs in as.

    Example:
        List the VMs that are powered on:
        ```python
        from snapferry.blocks import VCenter
        from snapferry.vsphere import list_vms

        vcenter = VCenter.load("BLOCK_NAME")
        with vcenter.session() as session:
            print([vm.name for vm in list_vms(session) if vm.power == "poweredOn"])
        ```
    """

    _block_type_name = "vCenter"
    _block_type_slug = "vcenter"
    _logo_url: ClassVar[Any] = LOGO
    _documentation_url: ClassVar[Any] = "https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/"

    host: str = Field(
        min_length=1, title="Host", description="Name or address of the vCenter, as its certificate has it."
    )
    port: int = Field(443, ge=1, le=65535, title="Port", description="TCP port of the vCenter's HTTPS service.")
    user: str = Field(min_length=1, title="User", description="The user to log in as, such as snapferry@vsphere.local.")
    password: SecretStr = Field(title="Password", description="That user's password.")
    ca: str | None = Field(
        None,
        title="CA",
        description="PEM of the CA that signed the certificates of vCenter and its hosts; the system's CAs by default.",
    )
    certificate_sha256: str | None = Field(
        None,
        title="Pinned certificate",
        pattern=r"^([0-9A-Fa-f]{2}:?){32}$",
        description="SHA-256 fingerprint of the vCenter's certificate, to trust exactly this one instead of a CA.",
    )
    verify: bool = Field(
        True,
        title="Verify the certificate",
        description="Switched off, anybody between here and the vCenter can read the password; each use warns.",
    )

    _mend_ca = field_validator("ca")(mend_pem)

    @field_validator("host")
    @classmethod
    def _host_alone(cls, host: str) -> str:
        if "/" in host or host.count(":") == 1:
            raise ValueError("a host alone is wanted: no https://, and the port has a field of its own")
        return host

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """The block as SNAPFERRY_VCENTER_HOST, _PORT, _USER, _PASSWORD, _CA and _FINGERPRINT describe it.

        Returns:
            None where SNAPFERRY_VCENTER_HOST isn't set.

        Raises:
            ValueError: a value is missing or bad (pydantic's ValidationError).
            OSError: the CA's file can't be read.
        """
        values = {
            name: environment.get(f"SNAPFERRY_VCENTER_{name.upper()}") for name in ("host", "port", "user", "password")
        }
        if not values["host"]:
            return None
        ca = environment.get("SNAPFERRY_VCENTER_CA")
        given: dict[str, Any] = {name: value for name, value in values.items() if value}
        return cls(
            **given,
            ca=read_pem(ca) if ca else None,
            certificate_sha256=environment.get("SNAPFERRY_VCENTER_FINGERPRINT") or None,
        )

    def session(self) -> Session:
        """A session of the engine; it logs in at its first call."""
        return Session(
            VCenterLogin(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                ca_pem=self.ca,
                certificate_sha256=self.certificate_sha256,
                verify=self.verify,
            )
        )

    @classmethod
    def _to_block_type(cls) -> BlockType:
        return block_type(cls)
