"""The filters that every `…pool.info` takes."""

from collections.abc import Iterable
from typing import TypeVar

from snapferry.lab.opennebula.access import Call
from snapferry.lab.opennebula.objects import Thing

T = TypeVar("T", bound=Thing)

MINE, ALL, MINE_AND_GROUP, MY_GROUP = -3, -2, -1, -4


def select(call: Call, things: Iterable[T], who: int, first: int, last: int) -> list[T]:
    """What the caller sees, newest first.

    `who`: -4 the group's, -3 own, -2 all, -1 own and the group's, else a user's. `first` and `last` are IDs; with a
    `last` below -1, `first` is how many to leave out and `-last` how many to give.
    """
    seen = sorted((it for it in things if call.sees(it) and _belongs(call, it, who)), key=lambda it: -it.id)
    if last < -1:
        return seen[max(first, 0) : max(first, 0) - last]
    return [it for it in seen if it.id >= first and (last == -1 or it.id <= last)]


def _belongs(call: Call, thing: Thing, who: int) -> bool:
    mine, group = thing.uid == call.user.id, thing.gid == call.user.gid
    return {MINE: mine, ALL: True, MINE_AND_GROUP: mine or group, MY_GROUP: group}.get(who, thing.uid == who)
