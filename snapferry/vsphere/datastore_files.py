"""Where the files of a VM's disks are served over HTTPS."""

from typing import TYPE_CHECKING

from snapferry.vsphere.models import FolderAccess, SourceDisk, SourceVm

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session


def folder_access(session: "Session", vm: SourceVm, disk: SourceDisk) -> FolderAccess:
    """Access to the datastore of a disk through `/folder` of vCenter, which asks a host, with the session's own login.

    Raises:
        CertificateNotTrusted: vCenter's certificate isn't the trusted one.
        Unreachable: vCenter doesn't answer.
    """
    login, context = session.login, session.tls_context()
    datacenter = vm.datacenter or "ha-datacenter"  # what a lone host calls its own
    return FolderAccess(login.host, login.port, context, login.user, login.password, datacenter, disk.datastore)
