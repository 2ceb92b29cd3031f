"""The source: everything that Snapferry asks of and does to vCenter."""

from snapferry.vsphere.change_tracking import (
    ChangeTracking,
    disable_change_tracking,
    enable_change_tracking,
    parse_change_id,
    trusted_base,
)
from snapferry.vsphere.concerns import Concern, concerns
from snapferry.vsphere.errors import (
    CertificateNotTrusted,
    ChangesUnknown,
    ConsolidationNeeded,
    InventoryIncomplete,
    MissingPrivilege,
    NotInTime,
    OtherTaskRuns,
    ShutdownRefused,
    ShutdownTimeout,
    SnapshotExists,
    SnapshotGone,
    TaskFailed,
    Unreachable,
    VmGone,
    WrongPassword,
)
from snapferry.vsphere.inventory import datastore_free_bytes, find_vm, list_vms, read_vm
from snapferry.vsphere.marks import annotate, mark_migrated, rename, set_nics_start_connected
from snapferry.vsphere.models import NfcTicket, PowerState, Snapshot, SourceDisk, SourceNic, SourceVm
from snapferry.vsphere.nfc_ticket import nfc_ticket
from snapferry.vsphere.power import (
    power_events_since,
    power_off,
    power_on,
    power_state,
    reverts_since,
    server_time,
    shutdown_guest,
)
from snapferry.vsphere.privileges import REQUIRED_PRIVILEGES, missing_privileges
from snapferry.vsphere.session import Session, VCenterLogin
from snapferry.vsphere.snapshots import create_snapshot, our_snapshots, read_snapshot, remove_snapshot, snapshot_name

__all__ = [
    "REQUIRED_PRIVILEGES",
    "CertificateNotTrusted",
    "ChangeTracking",
    "ChangesUnknown",
    "Concern",
    "ConsolidationNeeded",
    "InventoryIncomplete",
    "MissingPrivilege",
    "NfcTicket",
    "NotInTime",
    "OtherTaskRuns",
    "PowerState",
    "Session",
    "ShutdownRefused",
    "ShutdownTimeout",
    "Snapshot",
    "SnapshotExists",
    "SnapshotGone",
    "SourceDisk",
    "SourceNic",
    "SourceVm",
    "TaskFailed",
    "Unreachable",
    "VCenterLogin",
    "VmGone",
    "WrongPassword",
    "annotate",
    "concerns",
    "create_snapshot",
    "datastore_free_bytes",
    "disable_change_tracking",
    "enable_change_tracking",
    "find_vm",
    "list_vms",
    "mark_migrated",
    "missing_privileges",
    "nfc_ticket",
    "our_snapshots",
    "parse_change_id",
    "power_events_since",
    "power_off",
    "power_on",
    "power_state",
    "read_snapshot",
    "read_vm",
    "remove_snapshot",
    "rename",
    "reverts_since",
    "server_time",
    "set_nics_start_connected",
    "shutdown_guest",
    "snapshot_name",
    "trusted_base",
]
