"""`one.host.*`."""

from snapferry.lab.opennebula import render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.pools import ALL, select
from snapferry.lab.opennebula.registry import Method, Methods


def _info(call: Call, host_id: int, decrypt: bool = False) -> str:
    host = call.world.hosts.get(host_id)
    call.need(Op.READ, host)
    return render.host(host)


def _pool(call: Call) -> str:
    return f"<HOST_POOL>{''.join(render.host(it) for it in select(call, call.world.hosts, ALL, -1, -1))}</HOST_POOL>"


METHODS: Methods = {
    "host.info": Method("ib", 1, _info),
    "hostpool.info": Method("", 0, _pool),
}
