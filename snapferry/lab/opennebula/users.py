"""`one.user.*`, `one.group.*`: sessions are checked in `access`."""

import secrets
import time

from snapferry.lab.opennebula import render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import User
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.shared import changed
from snapferry.lab.opennebula.world import USERS_GID

_NO_QUOTAS = (
    "<DATASTORE_QUOTA></DATASTORE_QUOTA><NETWORK_QUOTA></NETWORK_QUOTA><VM_QUOTA></VM_QUOTA><IMAGE_QUOTA></IMAGE_QUOTA>"
)


def _defaults(who: str) -> str:
    return f"<DEFAULT_{who}_QUOTAS>{_NO_QUOTAS}</DEFAULT_{who}_QUOTAS>"


def _get(call: Call, user_id: int, op: Op) -> User:
    user = call.world.users.get(call.user.id if user_id == -1 else user_id)
    call.need(op, user)
    return user


def _info(call: Call, user_id: int = -1, decrypt: bool = False) -> str:
    return f"{render.user(call.world, _get(call, user_id, Op.READ))}{_NO_QUOTAS}{_defaults('USER')}</USER>"


def _pool(call: Call) -> str:
    seen = sorted((it for it in call.world.users if call.sees(it)), key=lambda it: -it.id)
    users = "".join(f"{render.user(call.world, it)}</USER>" for it in seen)
    return f"<USER_POOL>{users}{_defaults('USER')}</USER_POOL>"


def _allocate(call: Call, name: str, password: str, driver: str = "core") -> int:
    if not call.is_admin:
        raise call.refuse("Not authorized to perform CREATE USER")
    users = call.world.users
    taken = next((it for it in users if it.name == name), None)
    if taken:
        raise OneError(Code.INTERNAL, f"NAME is already taken by USER {taken.id}.")
    return users.add(User(id=users.next_id(), name=name, password=password, gid=USERS_GID)).id


def _passwd(call: Call, user_id: int, password: str) -> int:
    user = _get(call, user_id, Op.MANAGE)
    user.password = password
    return user.id


def _update(call: Call, user_id: int, text: str, mode: int = 0) -> int:
    user = _get(call, user_id, Op.MANAGE)
    user.attributes = changed(user.attributes, text, mode)
    return user.id


def _login(call: Call, name: str, token: str = "", seconds: int = -1, group_id: int = -1) -> str:
    """Makes a token that ends after `seconds` (-1: never), or with 0 takes this one (all, where none is named) back."""
    user = next((it for it in call.world.users if it.name == name), None)
    if user is None:
        raise OneError(Code.NO_EXISTS, "Error getting user [-1].", -1)
    call.need(Op.MANAGE, user)
    if seconds == 0:
        if token:
            user.tokens.pop(token, None)
        else:
            user.tokens.clear()
        return token
    made = token or secrets.token_hex(32)
    user.tokens[made] = -1 if seconds < 0 else time.time() + seconds
    return made


def _group_info(call: Call, group_id: int = -1, decrypt: bool = False) -> str:
    group = call.world.groups.get(call.user.gid if group_id == -1 else group_id)
    if group.id != call.user.gid:
        call.need(Op.READ, group)
    return f"{render.group(call.world, group)}{_NO_QUOTAS}{_defaults('GROUP')}</GROUP>"


def _group_pool(call: Call) -> str:
    seen = sorted((it for it in call.world.groups if call.sees(it) or it.id == call.user.gid), key=lambda it: -it.id)
    groups = "".join(f"{render.group(call.world, it)}</GROUP>" for it in seen)
    return f"<GROUP_POOL>{groups}{_defaults('GROUP')}</GROUP_POOL>"


METHODS: Methods = {
    "user.info": Method("ib", 0, _info),
    "userpool.info": Method("", 0, _pool),
    "user.allocate": Method("sss", 2, _allocate),
    "user.passwd": Method("is", 2, _passwd),
    "user.update": Method("isi", 2, _update),
    "user.login": Method("ssii", 1, _login),
    "group.info": Method("ib", 0, _group_info),
    "grouppool.info": Method("", 0, _group_pool),
}
