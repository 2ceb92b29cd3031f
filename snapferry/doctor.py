"""Whether both ends are ready for Snapferry; every finding says what to do."""

from snapferry import opennebula, vsphere
from snapferry.errors import SnapferryError
from snapferry.plan import Frozen
from snapferry.vsphere.models import SourceVm


class Finding(Frozen):
    """One thing that was looked at."""

    ok: bool
    what: str
    advice: str = ""


def check_source(session: vsphere.Session, vm: str | None = None) -> list[Finding]:
    """Looks at vCenter: login, inventory, and the privileges on a VM.

    Args:
        session: session with vCenter, not yet logged in.
        vm: a VM whose privileges are checked; the first of the inventory by default.
    """
    try:
        about = session.about
        vms = vsphere.list_vms(session)
        chosen = vsphere.find_vm(session, vm) if vm else next(iter(vms), None)
    except SnapferryError as error:
        return [_bad(error)]
    findings = [Finding(ok=True, what=f"vCenter answers: {about.fullName}.")]
    if chosen is None:
        return [
            *findings,
            Finding(ok=False, what="The inventory shows no VM.", advice="Give the user System.View on them."),
        ]
    findings.append(Finding(ok=True, what=f"{len(vms)} VM(s) can be seen."))
    try:
        return findings + _check_privileges(session, chosen)
    except SnapferryError as error:
        return [*findings, _bad(error)]


def _check_privileges(session: vsphere.Session, vm: SourceVm) -> list[Finding]:
    """What the user may do with the VM, and which routes to its disks are closed to it."""
    missing = vsphere.missing_privileges(session, vm)
    if missing:
        text = f"On {vm.name} the user lacks {', '.join(missing)}."
        found = [Finding(ok=False, what=text, advice="Give its role these privileges (README, Privileges).")]
    else:
        found = [Finding(ok=True, what=f"All privileges are there on {vm.name}.")]
    for route, names in vsphere.closed_routes(session, vm).items():
        text = f"Disks of {vm.name} can't be read by the route `{route}`: the user lacks {', '.join(names)}."
        found.append(Finding(ok=True, what=text, advice="Other routes do; to open this one too, give its role these."))
    return found


def check_target(client: opennebula.Client) -> list[Finding]:
    """Looks at OpenNebula: login, and each image datastore that could take disks."""
    try:
        findings = [Finding(ok=True, what=f"OpenNebula answers: version {client.version()}.")]
        datastores = [one for one in opennebula.list_datastores(client) if one.kind == 0]
    except SnapferryError as error:
        return [_bad(error)]
    for one in datastores:
        try:
            opennebula.check_placement(one)
            free = f"{one.free_mib / 1024:,.1f} GiB free"
            findings.append(Finding(ok=True, what=f"Image datastore {one.name}: written from here, {free}."))
        except SnapferryError as error:
            findings.append(_bad(error))
    if not datastores:
        findings.append(Finding(ok=False, what="There is no image datastore.", advice="Give the user USE on one."))
    return findings


def _bad(error: SnapferryError) -> Finding:
    return Finding(ok=False, what=error.cause, advice=error.next_step)
