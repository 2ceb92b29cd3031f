"""Where the files of a VM's disks are served over HTTPS."""

from typing import TYPE_CHECKING

from snapferry.vsphere import trust
from snapferry.vsphere.models import FolderAccess, SourceDisk, SourceVm

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session


def folder_access(session: "Session", vm: SourceVm, disk: SourceDisk) -> FolderAccess:
    """Access to the datastore of a disk through `/folder` of vCenter, which asks a host, with the session's own login.

    Raises:
        CertificateNotTrusted: vCenter's certificate isn't the trusted one.
        Unreachable: vCenter doesn't answer.
    """
    login = session.login
    context = trust.tls_context(
        login.host,
        login.port,
        ca_pem=login.ca_pem,
        certificate_sha256=login.certificate_sha256,
        verify=login.verify,
        timeout_seconds=login.timeout_seconds,
    )
    return FolderAccess(
        login.host, login.port, context, login.user, login.password, vm.datacenter or "ha-datacenter", disk.datastore
    )
