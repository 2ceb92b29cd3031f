"""Who may do what: sessions and tokens, permissions, locks."""

import time
from enum import Enum
from hmac import compare_digest
from typing import NamedTuple

from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.objects import Kind, Thing, User
from snapferry.lab.opennebula.world import ONEADMIN_GID, World


class Op(Enum):
    """What a call wants from an object: the place in its permissions, and the highest lock level that stops it."""

    READ = (0, 0)
    USE = (0, 1)
    MANAGE = (1, 2)
    ADMIN = (2, 3)

    @property
    def text(self) -> str:
        return "USE" if self is Op.READ else self.name


class Call(NamedTuple):
    """One authenticated call."""

    world: World
    user: User
    request_id: int

    @property
    def is_admin(self) -> bool:
        return self.user.id == 0 or self.user.gid == ONEADMIN_GID

    def refuse(self, message: str) -> OneError:
        return OneError(Code.AUTHORIZATION, f"User [{self.user.id}] : {message}.")

    def need(self, op: Op, thing: Thing, *, past_lock: bool = False) -> None:
        """Raises OneError (AUTHORIZATION) where the object is locked for this, or the user may not."""
        if thing.lock and op is not Op.READ and not past_lock and thing.lock.level <= op.value[1]:
            raise self.refuse(f"{thing.kind.auth} is locked. [{thing.id}]")
        if not self._allowed(op, thing):
            raise self.refuse(f"Not authorized to perform {op.text} {thing.kind.auth} [{thing.id}]")

    def sees(self, thing: Thing) -> bool:
        return self._allowed(Op.USE, thing)

    def _allowed(self, op: Op, thing: Thing) -> bool:
        if self.is_admin or (op.text == "USE" and thing.kind is Kind.DATASTORE):
            return True  # the cluster's default rules give every user the datastores
        if thing.kind is Kind.USER and thing.id == self.user.id:
            return True
        bit = op.value[0]
        owner, group, other = (thing.permissions[at + bit] for at in (0, 3, 6))
        return bool(
            (owner and thing.uid == self.user.id) or (group and thing.gid == self.user.gid) or other,
        )


def authenticate(world: World, session: str) -> User | None:
    """The user of a session `name:secret`, the secret being the password or a token that hasn't ended."""
    name, colon, secret = session.partition(":")
    user = next((user for user in world.users if user.name == name), None) if colon else None
    if user is None:
        return None
    if compare_digest(user.password.encode(), secret.encode()):
        return user
    ends = next((end for token, end in user.tokens.items() if compare_digest(token.encode(), secret.encode())), None)
    return user if ends is not None and (ends == -1 or time.time() < ends) else None
