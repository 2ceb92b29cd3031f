"""Formats of VMDK files: the descriptor and the layouts of its extents."""

from snapferry.vmdk.descriptor import NO_PARENT_CID, Descriptor, DescriptorError, ExtentLine

__all__ = ["NO_PARENT_CID", "Descriptor", "DescriptorError", "ExtentLine"]
