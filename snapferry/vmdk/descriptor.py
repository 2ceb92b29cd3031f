"""The text file that describes one VMDK: its identity, its parent, its extents and its disk database."""

import re
from typing import NamedTuple, Self

from snapferry.errors import TransferError
from snapferry.plan import Frozen

NO_PARENT_CID = 0xFFFFFFFF

_EXTENT = re.compile(r'^(?:RW|RDONLY|NOACCESS)\s+(\d+)\s+(\S+)(?:\s+"([^"]*)")?')
_FIELD = re.compile(r'^([A-Za-z0-9_.]+)\s*=\s*(?:"(.*)"|(\S+))\s*$')


class DescriptorError(TransferError):
    """The text isn't a VMDK descriptor that can be read."""


class ExtentLine(NamedTuple):
    """One extent of a disk: its size in sectors of 512 bytes, its type (`VMFS`, `SESPARSE`, ...) and its file."""

    sectors: int
    kind: str
    file: str | None


class Descriptor(Frozen):
    """A VMDK descriptor.

    `cid` says nothing about identity: a new delta carries its parent's until it has been written and closed.
    """

    cid: int
    parent_cid: int = NO_PARENT_CID
    create_type: str
    parent_file_name_hint: str | None = None
    extents: tuple[ExtentLine, ...]
    change_track_path: str | None = None
    ddb: dict[str, str] = {}
    """The disk database, without the leading `ddb.` of each key."""

    @property
    def capacity_sectors(self) -> int:
        return sum(extent.sectors for extent in self.extents)

    def text(self) -> str:
        """The descriptor as ESXi writes it."""
        lines = [
            "# Disk DescriptorFile",
            "version=1",
            'encoding="UTF-8"',
            f"CID={self.cid:08x}",
            f"parentCID={self.parent_cid:08x}",
            'isNativeSnapshot="no"',
            f'createType="{self.create_type}"',
        ]
        if self.parent_file_name_hint is not None:
            lines.append(f'parentFileNameHint="{self.parent_file_name_hint}"')
        lines += ["", "# Extent description"]
        lines += [f"RW {sectors} {kind}" + (f' "{file}"' if file else "") for sectors, kind, file in self.extents]
        if self.change_track_path is not None:
            lines += ["", "# Change Tracking File", f'changeTrackPath="{self.change_track_path}"']
        lines += ["", "# The Disk Data Base ", "#DDB", ""]
        lines += [f'ddb.{key} = "{value}"' for key, value in sorted(self.ddb.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a descriptor.

        Raises:
            DescriptorError: a field that every descriptor has is missing or no number.
        """
        fields: dict[str, str] = {}
        extents: list[ExtentLine] = []
        for line in text.splitlines():
            if extent := _EXTENT.match(line):
                extents.append(ExtentLine(int(extent[1]), extent[2].upper(), extent[3]))
            elif field := _FIELD.match(line):
                fields[field[1]] = field[2] if field[2] is not None else field[3]
        try:
            return cls(
                cid=int(fields["CID"], 16),
                parent_cid=int(fields.get("parentCID", "ffffffff"), 16),
                create_type=fields["createType"],
                parent_file_name_hint=fields.get("parentFileNameHint"),
                extents=tuple(extents),
                change_track_path=fields.get("changeTrackPath"),
                ddb={key.removeprefix("ddb."): value for key, value in fields.items() if key.startswith("ddb.")},
            )
        except (KeyError, ValueError) as error:
            cause = f"This is no VMDK descriptor: {error}."
            raise DescriptorError(cause, "Look at the file on the datastore.") from error
