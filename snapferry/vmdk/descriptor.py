"""The text file that describes one VMDK: its identity, its parent, its extents and its disk database."""

import re
from typing import NamedTuple, Self

from snapferry.plan import Frozen
from snapferry.vmdk.errors import DescriptorError

NO_PARENT_CID = 0xFFFFFFFF
MOST_BYTES = 1 << 20
"""No descriptor is longer."""

_EXTENT = re.compile(r'^(?:RW|RDONLY|NOACCESS)\s+([0-9]{1,15})\s+(\S+)(?:\s+"([^"]*)"(?:\s+([0-9]{1,15}))?)?')
_ACCESS = re.compile(r"^(?:RW|RDONLY|NOACCESS)\s")
_CID = re.compile(r"^[0-9a-fA-F]{1,8}$")
_ENCODING = re.compile(rb'^encoding\s*=\s*"([A-Za-z0-9_-]{1,20})"', re.MULTILINE)
_ENCODINGS = ("utf-8", "windows-1252", "gbk", "shift_jis", "big5", "euc-kr")
_FIELD = re.compile(r'^([A-Za-z0-9_.]+)\s*=\s*(?:"(.*)"|(\S+))\s*$')


class ExtentLine(NamedTuple):
    """One extent of a disk: its size in sectors of 512 bytes, its type (`VMFS`, `SESPARSE`, ...) and its file.

    A flat extent begins `offset_sectors` behind its file's start.
    """

    sectors: int
    kind: str
    file: str | None
    offset_sectors: int = 0


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
        lines += [f"RW {one.sectors} {one.kind}" + (f' "{one.file}"' if one.file else "") for one in self.extents]
        if self.change_track_path is not None:
            lines += ["", "# Change Tracking File", f'changeTrackPath="{self.change_track_path}"']
        lines += ["", "# The Disk Data Base ", "#DDB", ""]
        lines += [f'ddb.{key} = "{value}"' for key, value in sorted(self.ddb.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def decode(cls, name: str, raw: bytes) -> Self:
        """Reads a descriptor as it lies on a datastore, in the encoding that it names.

        Raises:
            DescriptorError: it is too long, in another encoding, or as `parse`.
        """
        if len(raw) > MOST_BYTES:
            raise DescriptorError(f"{name} is too long for a VMDK descriptor.")
        named = _ENCODING.search(raw)
        encoding = named[1].decode("ascii").lower() if named else "utf-8"
        try:
            if encoding not in _ENCODINGS:
                raise DescriptorError(f"{name} is in the encoding {encoding}.")
            return cls.parse(raw.rstrip(b"\0").decode(encoding), name)
        except UnicodeDecodeError as error:
            raise DescriptorError(f"{name} isn't a VMDK descriptor: it is no text in {encoding}.") from error

    @classmethod
    def parse(cls, text: str, name: str = "The text") -> Self:
        """Reads a descriptor.

        Args:
            text: the whole of it.
            name: what error messages call it.

        Raises:
            DescriptorError: a field that every descriptor has is missing, or a number is none.
        """
        fields: dict[str, str] = {}
        extents: list[ExtentLine] = []
        for line in text.splitlines():
            if extent := _EXTENT.match(line):
                extents.append(ExtentLine(int(extent[1]), extent[2].upper(), extent[3], int(extent[4] or 0)))
            elif _ACCESS.match(line):
                raise DescriptorError(f"{name} is no VMDK descriptor: {line[:100]!r} describes no extent.")
            elif field := _FIELD.match(line):
                fields[field[1]] = field[2] if field[2] is not None else field[3]
        try:
            return cls(
                cid=_cid(fields["CID"]),
                parent_cid=_cid(fields.get("parentCID", "ffffffff")),
                create_type=fields["createType"],
                parent_file_name_hint=fields.get("parentFileNameHint"),
                extents=tuple(extents),
                change_track_path=fields.get("changeTrackPath"),
                ddb={key.removeprefix("ddb."): value for key, value in fields.items() if key.startswith("ddb.")},
            )
        except (KeyError, ValueError) as error:
            raise DescriptorError(f"{name} is no VMDK descriptor: {error}.") from error


def _cid(text: str) -> int:
    if not _CID.match(text):
        raise ValueError(f"{text[:100]!r} is no CID")
    return int(text, 16)
