"""The block `OpenNebula`: where a migration's target is, and who asks it."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from prefect.blocks.core import Block
from prefect.client.schemas.objects import BlockType
from pydantic import Field, SecretStr, field_validator

from snapferry.blocks.certificates import mend_pem, read_pem
from snapferry.blocks.logo import LOGO, block_type
from snapferry.opennebula import Client, OpenNebulaLogin


class OpenNebula(Block):
    """Where a migration's target is: one OpenNebula frontend, and the user who owns what is made there.

    Example:
        List the image datastores:
        ```python
        from snapferry.blocks import OpenNebula
        from snapferry.opennebula import list_datastores

        opennebula = OpenNebula.load("BLOCK_NAME")
        with opennebula.client() as client:
            print([datastore.name for datastore in list_datastores(client) if datastore.kind == 0])
        ```
    """

    _block_type_name = "OpenNebula"
    _block_type_slug = "opennebula"
    _logo_url: ClassVar[Any] = LOGO
    _documentation_url: ClassVar[Any] = (
        "https://docs.opennebula.io/stable/product/integration_references/system_interfaces/api/"
    )

    endpoint: str = Field(
        title="Endpoint",
        pattern=r"^https?://",
        description="Address of the frontend's XML-RPC service, such as https://one.example.org:2634/RPC2.",
    )
    user: str = Field(min_length=1, title="User", description="The user who shall own images, templates and VMs.")
    password: SecretStr = Field(title="Password or token", description="That user's password or login token.")
    ca: str | None = Field(
        None,
        title="CA",
        description="PEM of the CA that signed the frontend's certificate; the system's CAs by default.",
    )
    verify: bool = Field(
        True,
        title="Verify the certificate",
        description="Switched off, anybody between here and the frontend can read the password; each use warns.",
    )

    _mend_ca = field_validator("ca")(mend_pem)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """The block as SNAPFERRY_OPENNEBULA_ENDPOINT, _USER, _PASSWORD and _CA describe it.

        Returns:
            None where SNAPFERRY_OPENNEBULA_ENDPOINT isn't set.

        Raises:
            ValueError: a value is missing or bad (pydantic's ValidationError).
            OSError: the CA's file can't be read.
        """
        values = {
            name: environment.get(f"SNAPFERRY_OPENNEBULA_{name.upper()}") for name in ("endpoint", "user", "password")
        }
        if not values["endpoint"]:
            return None
        ca = environment.get("SNAPFERRY_OPENNEBULA_CA")
        given: dict[str, Any] = {name: value for name, value in values.items() if value}
        return cls(**given, ca=read_pem(ca) if ca else None)

    def client(self) -> Client:
        """A client of the engine; it connects at its first call."""
        return Client(
            OpenNebulaLogin(
                endpoint=self.endpoint, user=self.user, secret=self.password, ca_pem=self.ca, verify=self.verify
            )
        )

    @classmethod
    def _to_block_type(cls) -> BlockType:
        return block_type(cls)
