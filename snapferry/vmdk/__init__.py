"""Formats of VMDK files: descriptors, the layouts of extents, chains of them, and disks sent as a stream."""

from snapferry.vmdk.chain import Chain, Layer, open_chain
from snapferry.vmdk.descriptor import NO_PARENT_CID, Descriptor, ExtentLine
from snapferry.vmdk.errors import (
    ChainError,
    DescriptorError,
    FileUnreadable,
    VmdkCorrupt,
    VmdkError,
    VmdkInUse,
    VmdkTruncated,
    VmdkUnsupported,
)
from snapferry.vmdk.files import Folder, LocalFile, LocalFolder, RangeFile, on_datastore
from snapferry.vmdk.runs import ZEROS, Runs
from snapferry.vmdk.stream import PackedGrain, StreamOptimized

__all__ = [
    "NO_PARENT_CID",
    "ZEROS",
    "Chain",
    "ChainError",
    "Descriptor",
    "DescriptorError",
    "ExtentLine",
    "FileUnreadable",
    "Folder",
    "Layer",
    "LocalFile",
    "LocalFolder",
    "PackedGrain",
    "RangeFile",
    "Runs",
    "StreamOptimized",
    "VmdkCorrupt",
    "VmdkError",
    "VmdkInUse",
    "VmdkTruncated",
    "VmdkUnsupported",
    "on_datastore",
    "open_chain",
]
