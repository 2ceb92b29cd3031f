"""Objects as XML, in the order and form in which the frontend gives them."""

from collections.abc import Iterable

from snapferry.lab.opennebula.attributes import Attributes, cdata, plain
from snapferry.lab.opennebula.leases import address, range_ends
from snapferry.lab.opennebula.objects import (
    AddressRange,
    Datastore,
    Group,
    History,
    Host,
    Image,
    ImageStates,
    Machine,
    Network,
    Template,
    Thing,
    User,
    VmState,
)
from snapferry.lab.opennebula.world import World

_PERMISSIONS = tuple(f"{who}_{what}" for who in ("OWNER", "GROUP", "OTHER") for what in "UMA")
_TIMES_BEFORE, _TIMES_AFTER = ("STIME", "ETIME"), ("PSTIME", "PETIME", "RSTIME", "RETIME", "ESTIME", "EETIME")


def ids(tag: str, numbers: Iterable[int]) -> str:
    return f"<{tag}>{''.join(plain('ID', number) for number in numbers)}</{tag}>"


def _head(world: World, thing: Thing) -> str:
    user, group = world.owner(thing)
    return (
        plain("ID", thing.id)
        + plain("UID", thing.uid)
        + plain("GID", thing.gid)
        + plain("UNAME", user)
        + plain("GNAME", group)
        + plain("NAME", thing.name)
    )


def _permissions(thing: Thing) -> str:
    bits = "".join(plain(tag, bit) for tag, bit in zip(_PERMISSIONS, thing.permissions, strict=True))
    return f"<PERMISSIONS>{bits}</PERMISSIONS>"


def _lock(thing: Thing) -> str:
    lock = thing.lock
    if not lock:
        return ""
    return (
        f"<LOCK><LOCKED>{lock.level}</LOCKED><OWNER>{lock.owner}</OWNER><TIME>{lock.time}</TIME>"
        f"<REQ_ID>{lock.request_id}</REQ_ID></LOCK>"
    )


def image(world: World, it: Image) -> str:
    datastore = world.datastores.get(it.datastore_id)
    snapshots = "" if it.registered else (
        cdata("ALLOW_ORPHANS", "NO") + cdata("CURRENT_BASE", -1) + cdata("NEXT_SNAPSHOT", 0)
    )  # fmt: skip
    return (
        f"<IMAGE>{_head(world, it)}{_lock(it)}{_permissions(it)}"
        f"<TYPE>{it.type}</TYPE><DISK_TYPE>0</DISK_TYPE><PERSISTENT>{int(it.persistent)}</PERSISTENT>"
        f"<REGTIME>{it.regtime}</REGTIME><MODTIME>{it.modtime}</MODTIME>"
        f"{cdata('SOURCE', it.source)}{cdata('PATH', it.path)}{cdata('FORMAT', it.format)}{cdata('FS', '')}"
        f"<SIZE>{it.size}</SIZE><STATE>{it.state:d}</STATE>"
        f"<PREV_STATE>{(ImageStates.INIT if it.fresh else it.state):d}</PREV_STATE>"
        f"<RUNNING_VMS>{len(it.vms)}</RUNNING_VMS><CLONING_OPS>{it.cloning_ops}</CLONING_OPS>"
        f"<CLONING_ID>{it.cloning_id}</CLONING_ID><TARGET_SNAPSHOT>-1</TARGET_SNAPSHOT>"
        f"<DATASTORE_ID>{it.datastore_id}</DATASTORE_ID>{plain('DATASTORE', datastore.name)}"
        f"{ids('VMS', it.vms)}<CLONES></CLONES><APP_CLONES></APP_CLONES>{it.attributes.xml('TEMPLATE')}"
        f"<SNAPSHOTS>{snapshots}</SNAPSHOTS><BACKUP_INCREMENTS></BACKUP_INCREMENTS><BACKUP_DISK_IDS></BACKUP_DISK_IDS></IMAGE>"
    )


def template(world: World, it: Template) -> str:
    return (
        f"<VMTEMPLATE>{_head(world, it)}{_lock(it)}{_permissions(it)}<REGTIME>{it.regtime}</REGTIME>"
        f"{it.attributes.xml('TEMPLATE')}</VMTEMPLATE>"
    )


def datastore(world: World, it: Datastore, used_mib: int) -> str:
    images = (image.id for image in world.images if image.datastore_id == it.id)
    ds_mad = "-" if it.type == 1 else "fs"
    free = max(it.total_mib - used_mib, 0)
    return (
        f"<DATASTORE>{_head(world, it)}{_permissions(it)}{cdata('DS_MAD', ds_mad)}{cdata('TM_MAD', it.tm)}"
        f"{cdata('BASE_PATH', it.base_path)}<TYPE>{it.type}</TYPE><DISK_TYPE>0</DISK_TYPE><STATE>0</STATE>"
        f"<CLUSTERS><ID>0</ID></CLUSTERS><TOTAL_MB>{it.total_mib}</TOTAL_MB><FREE_MB>{free}</FREE_MB>"
        f"<USED_MB>{used_mib}</USED_MB>{ids('IMAGES', images)}{it.attributes.xml('TEMPLATE')}</DATASTORE>"
    )


def network(world: World, it: Network, *, in_pool: bool = False) -> str:
    """A pool gives the ranges' packed ALLOCATED instead of their ends and leases."""
    get = it.attributes.get
    leased = [lease for one in it.ranges for lease in one.leases.values()]
    ranges = "".join(_pool_range(one) if in_pool else _range(one) for one in it.ranges)
    return (
        f"<VNET>{_head(world, it)}{_lock(it)}{_permissions(it)}<CLUSTERS><ID>0</ID></CLUSTERS>"
        f"{cdata('BRIDGE', get('BRIDGE') or '')}{cdata('BRIDGE_TYPE', 'linux')}"
        f"{cdata('STATE', it.state)}{cdata('PREV_STATE', it.state)}<PARENT_NETWORK_ID/><TEMPLATE_ID/>"
        f"{cdata('VN_MAD', get('VN_MAD') or '')}<PHYDEV/><VLAN_ID/><OUTER_VLAN_ID/>"
        "<VLAN_ID_AUTOMATIC>0</VLAN_ID_AUTOMATIC><OUTER_VLAN_ID_AUTOMATIC>0</OUTER_VLAN_ID_AUTOMATIC>"
        f"<USED_LEASES>{len(leased)}</USED_LEASES><VROUTERS></VROUTERS>"
        f"{ids('UPDATED_VMS', sorted({vm for vm in leased if vm >= 0}))}<OUTDATED_VMS></OUTDATED_VMS>"
        "<UPDATING_VMS></UPDATING_VMS><ERROR_VMS></ERROR_VMS>"
        f"{it.attributes.xml('TEMPLATE')}<AR_POOL>{ranges}</AR_POOL></VNET>"
    )


def _range_values(it: AddressRange) -> dict[str, str]:
    values = {"AR_ID": str(it.id), "MAC": it.first_mac, "NEXT_INDEX": "0", "SHARED": "NO", "SIZE": str(it.size)}
    return {**it.extra, **values, "TYPE": it.type, **({"IP": it.first_ip} if it.first_ip else {})}


def _range(it: AddressRange) -> str:
    values = _range_values(it)
    ends = "".join(cdata(tag, value) for tag, value in range_ends(it).items())
    leases = "".join(_lease(it, index) for index in sorted(it.leases))
    body = f"<LEASES>{leases}</LEASES>" if leases else "<LEASES/>"
    inner = "".join(cdata(tag, values[tag]) for tag in sorted(values))
    return f"<AR>{inner}{ends}<USED_LEASES>{len(it.leases)}</USED_LEASES>{body}</AR>"


def _lease(it: AddressRange, index: int) -> str:
    ip, mac = address(it, index)
    return f"<LEASE>{cdata('IP', ip) if ip else ''}{cdata('MAC', mac)}{cdata('VM', it.leases[index])}</LEASE>"


def _pool_range(it: AddressRange) -> str:
    values = _range_values(it)
    if it.leases:
        packed = (f" {index} {0x1000000000 | (vm & 0xFFFFFFFF)}" for index, vm in sorted(it.leases.items()))
        values["ALLOCATED"] = "".join(packed)
    return f"<AR>{''.join(cdata(tag, values[tag]) for tag in sorted(values))}</AR>"


def machine(world: World, it: Machine, *, last_history_only: bool = False) -> str:
    """The whole VM; the extended pool gives only the last history record."""
    records = it.history[-1:] if last_history_only else it.history
    history = "".join(_history(it, record) for record in records)
    return (
        f"<VM>{_head(world, it)}{_permissions(it)}<LAST_POLL>{it.last_poll}</LAST_POLL>"
        f"<STATE>{it.state:d}</STATE><LCM_STATE>{it.lcm:d}</LCM_STATE>"
        f"<PREV_STATE>{it.state:d}</PREV_STATE><PREV_LCM_STATE>{it.lcm:d}</PREV_LCM_STATE><RESCHED>0</RESCHED>"
        f"<STIME>{it.regtime}</STIME><ETIME>{it.etime}</ETIME>{plain('DEPLOY_ID', it.deploy_id)}{_lock(it)}"
        f"<MONITORING></MONITORING><SCHED_ACTIONS></SCHED_ACTIONS>{_vm_template(it).xml('TEMPLATE')}"
        f"{it.attributes.xml('USER_TEMPLATE')}"
        f"{f'<HISTORY_RECORDS>{history}</HISTORY_RECORDS>' if history else '<HISTORY_RECORDS/>'}"
        "<BACKUPS><BACKUP_CONFIG/><BACKUP_IDS></BACKUP_IDS></BACKUPS></VM>"
    )


def machine_in_pool(world: World, it: Machine) -> str:
    """The short form of `vmpool.info`, which has no USER_TEMPLATE."""
    few = Attributes(
        [item for item in _vm_template(it) if item[0] in ("CPU", "MEMORY", "VCPU", "DISK", "NIC", "GRAPHICS")]
    )
    records = "".join(_short_history(it, record) for record in it.history[-1:])
    return (
        f"<VM>{_head(world, it)}<LAST_POLL>{it.last_poll}</LAST_POLL><STATE>{it.state:d}</STATE>"
        f"<LCM_STATE>{it.lcm:d}</LCM_STATE><RESCHED>0</RESCHED><STIME>{it.regtime}</STIME><ETIME>{it.etime}</ETIME>"
        f"{plain('DEPLOY_ID', it.deploy_id)}{_lock(it)}{few.xml('TEMPLATE')}<MONITORING></MONITORING>"
        f"<HISTORY_RECORDS>{records}</HISTORY_RECORDS></VM>"
    )


def _vm_template(it: Machine) -> Attributes:
    whole = it.template.copy()
    for name, vectors in (("DISK", it.disks), ("NIC", it.nics), ("CONTEXT", [it.context] if it.context else [])):
        for vector in vectors:
            whole.add(name, vector)
    return whole


def _history(it: Machine, record: History) -> str:
    before = "".join(plain(tag, record.times.get(tag, 0)) for tag in _TIMES_BEFORE)
    after = "".join(plain(tag, record.times.get(tag, 0)) for tag in _TIMES_AFTER)
    return (
        f"<HISTORY><OID>{it.id}</OID><SEQ>{record.seq}</SEQ>{plain('HOSTNAME', record.host_name)}"
        f"<HID>{record.host_id}</HID><CID>0</CID>{before}{cdata('VM_MAD', 'kvm')}{cdata('TM_MAD', record.tm)}"
        f"<DS_ID>{record.datastore_id}</DS_ID><PLAN_ID>-2</PLAN_ID><ACTION_ID>-1</ACTION_ID>{after}"
        f"<ACTION>{record.action}</ACTION><UID>{record.uid}</UID><GID>{record.gid}</GID>"
        f"<REQUEST_ID>{record.request_id}</REQUEST_ID></HISTORY>"
    )


def _short_history(it: Machine, record: History) -> str:
    return (
        f"<HISTORY><OID>{it.id}</OID><SEQ>{record.seq}</SEQ>{plain('HOSTNAME', record.host_name)}"
        f"<HID>{record.host_id}</HID><CID>0</CID><DS_ID>{record.datastore_id}</DS_ID>"
        f"{cdata('VM_MAD', 'kvm')}{cdata('TM_MAD', record.tm)}<ACTION>{record.action}</ACTION></HISTORY>"
    )


def host(it: Host) -> str:
    share = "".join(
        plain(tag, value)
        for tag, value in (
            ("MEM_USAGE", 0), ("CPU_USAGE", 0), ("TOTAL_MEM", 67108864), ("TOTAL_CPU", 1600), ("MAX_MEM", 67108864),
            ("MAX_CPU", 1600), ("RUNNING_VMS", len(it.vms)), ("VMS_THREAD", 1),
        )
    )  # fmt: skip
    datastores = "<DATASTORES><DISK_USAGE>0</DISK_USAGE></DATASTORES><PCI_DEVICES/><NUMA_NODES/>"
    return (
        f"<HOST><ID>{it.id}</ID>{plain('NAME', it.name)}<STATE>2</STATE><PREV_STATE>2</PREV_STATE>"
        f"{cdata('IM_MAD', 'kvm')}{cdata('VM_MAD', 'kvm')}<CLUSTER_ID>0</CLUSTER_ID><CLUSTER>default</CLUSTER>"
        f"<HOST_SHARE>{share}{datastores}</HOST_SHARE>{ids('VMS', it.vms)}{it.attributes.xml('TEMPLATE')}"
        "<MONITORING/></HOST>"
    )


def user(world: World, it: User) -> str:
    tokens = "".join(
        f"<LOGIN_TOKEN>{plain('TOKEN', token)}{plain('EXPIRATION_TIME', int(end))}<EGID>-1</EGID></LOGIN_TOKEN>"
        for token, end in it.tokens.items()
    )
    return (
        f"<USER><ID>{it.id}</ID><GID>{it.gid}</GID>{ids('GROUPS', [it.gid])}"
        f"{plain('GNAME', world.groups.get(it.gid).name)}{plain('NAME', it.name)}{plain('PASSWORD', '***')}"
        f"<AUTH_DRIVER>core</AUTH_DRIVER><ENABLED>1</ENABLED>{tokens}{it.attributes.xml('TEMPLATE')}"
    )


def group(world: World, it: Group) -> str:
    members = (user.id for user in world.users if user.gid == it.id)
    return (
        f"<GROUP><ID>{it.id}</ID>{plain('NAME', it.name)}{it.attributes.xml('TEMPLATE')}"
        f"{ids('USERS', members)}<ADMINS></ADMINS>"
    )


def visible_state(it: Machine) -> bool:
    """Whether a pool that leaves finished VMs out shows this one."""
    return it.state is not VmState.DONE
