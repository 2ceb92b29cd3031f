"""Who may do what, as clients may ask it."""

from typing import Any

from pyVmomi import vim

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.faults import invalid_argument
from snapferry.lab.vcenter.sessions import Account
from snapferry.lab.vcenter.store import Store

PRIVILEGES = (
    "System.Anonymous",
    "System.View",
    "System.Read",
    "Datastore.Browse",
    "Datastore.FileManagement",
    "VApp.Export",
    "VirtualMachine.Config.AddNewDisk",
    "VirtualMachine.Config.AdvancedConfig",
    "VirtualMachine.Config.Annotation",
    "VirtualMachine.Config.ChangeTracking",
    "VirtualMachine.Config.DiskExtend",
    "VirtualMachine.Config.DiskLease",
    "VirtualMachine.Config.EditDevice",
    "VirtualMachine.Config.RemoveDisk",
    "VirtualMachine.Config.Rename",
    "VirtualMachine.Config.Settings",
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Interact.PowerOn",
    "VirtualMachine.Provisioning.DiskRandomRead",
    "VirtualMachine.Provisioning.GetVmFiles",
    "VirtualMachine.State.CreateSnapshot",
    "VirtualMachine.State.RemoveSnapshot",
)
"""What the lab's privilege list shows; a user may hold others, too."""


def require(call: Call, entity: Any, privilege: str) -> None:
    """Raises NoPermission, which names the privilege, unless the caller holds it."""
    if call.user.account.may(privilege):
        return
    missing = vim.fault.NoPermission.EntityPrivileges(entity=entity, privilegeIds=[privilege])
    raise vim.fault.NoPermission(
        object=entity,
        privilegeId=privilege,
        missingPrivileges=[missing],
        msg="Permission to perform this operation was denied.",
    )


def add_authorization(store: Store) -> Any:
    """The AuthorizationManager."""
    listed = [
        vim.AuthorizationManager.Privilege(
            privId=one, name=one.rpartition(".")[2], onParent=False, privGroupName=one.rpartition(".")[0]
        )
        for one in PRIVILEGES
    ]
    admin = vim.AuthorizationManager.Role(
        roleId=-1,
        system=True,
        name="Admin",
        info=vim.Description(label="Administrator", summary="Full access rights"),
        privilege=list(PRIVILEGES),
    )
    return store.add(vim.AuthorizationManager("AuthorizationManager"), privilegeList=listed, roleList=[admin])


def _held(entities: list[Any], account: Account, privileges: list[str]) -> Any:
    Held = vim.AuthorizationManager.EntityPrivilege
    Each = vim.AuthorizationManager.PrivilegeAvailability
    return Held.Array(
        [
            Held(entity=one, privAvailability=[Each(privId=name, isGranted=account.may(name)) for name in privileges])
            for one in entities
        ]
    )


@answers("HasPrivilegeOnEntities")
def _has_privileges(call: Call) -> Any:
    session = call.vcenter.sessions.with_key(call.arguments["sessionId"])
    if session is None:
        raise invalid_argument("sessionId")
    return _held(call.arguments["entity"], session.account, call.get("privId", []))


@answers("HasPrivilegeOnEntity")
def _has_privileges_on_one(call: Call) -> Any:
    session = call.vcenter.sessions.with_key(call.arguments["sessionId"])
    if session is None:
        raise invalid_argument("sessionId")
    return [session.account.may(name) for name in call.get("privId", [])]


@answers("HasUserPrivilegeOnEntities")
def _user_has_privileges(call: Call) -> Any:
    return _held(call.arguments["entities"], _account(call), call.get("privId", []))


@answers("FetchUserPrivilegeOnEntities")
def _privileges_of_user(call: Call) -> Any:
    account = _account(call)
    held = [name for name in PRIVILEGES if account.may(name)]
    Found = vim.AuthorizationManager.UserPrivilegeResult
    return Found.Array([Found(entity=one, privileges=held) for one in call.arguments["entities"]])


def _account(call: Call) -> Account:
    account = call.vcenter.sessions.accounts.get(call.arguments["userName"].lower())
    if account is None:
        raise vim.fault.UserNotFound(
            principal=call.arguments["userName"], unresolved=False, msg="The user or group could not be found."
        )
    return account


@answers("Login")
def _login(call: Call) -> Any:
    call.opened = call.vcenter.sessions.login(call.arguments["userName"], call.arguments["password"])
    text = f"User {call.opened.account.name}@127.0.0.1 logged in"
    fields = {"ipAddress": "127.0.0.1", "locale": "en", "sessionId": call.opened.key}
    call.vcenter.events.post(vim.event.UserLoginSessionEvent, call.opened.account.name, text, **fields)
    return call.opened.describe()


@answers("Logout")
def _logout(call: Call) -> None:
    call.vcenter.sessions.end(call.user)


@answers("SessionIsActive")
def _session_is_active(call: Call) -> bool:
    session = call.vcenter.sessions.with_key(call.arguments["sessionID"])
    return session is not None and session.account.name == call.arguments["userName"]


@answers("TerminateSession")
def _terminate(call: Call) -> None:
    for key in call.arguments["sessionId"]:
        session = call.vcenter.sessions.with_key(key)
        if session is None:
            raise vim.fault.NotFound(msg="The session could not be found.")
        if session is call.user:
            raise invalid_argument("sessionId")
        call.vcenter.sessions.end(session)
