"""How many disks are read from one host at once."""

from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from snapferry.errors import Refused, Stopped
from snapferry.flows.limits import host_slots, limit_name
from snapferry.watch import Watch

pytestmark = pytest.mark.slow


def slots(host: str) -> tuple[int, int]:
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(limit_name(host))
    return limit.limit, limit.active_slots


def test_each_disk_holds_a_slot_of_its_host_while_it_is_read(prefect_api: str) -> None:
    host = f"esx-{uuid4().hex[:6]}.example.org"
    with host_slots(host, disks=2, copies=3, watch=Watch()):
        assert slots(host) == (3, 2)
    assert slots(host) == (3, 0)


def test_what_an_operator_set_is_kept_and_a_vm_with_many_disks_still_gets_its_turn(prefect_api: str) -> None:
    host = f"esx-{uuid4().hex[:6]}.example.org"
    with host_slots(host, disks=1, copies=8, watch=Watch()), get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(limit_name(host), GlobalConcurrencyLimitUpdate(limit=2))
    with host_slots(host, disks=5, copies=8, watch=Watch()):
        assert slots(host) == (2, 2)


def test_a_wait_for_a_busy_host_is_told_can_be_stopped_and_has_an_end(prefect_api: str) -> None:
    host = f"esx-{uuid4().hex[:6]}.example.org"
    steps: list[str] = []
    stopping = Watch()

    def stop(name: str, detail: str) -> None:
        steps.append(f"{name}: {detail}")
        stopping.stop.set()

    telling = Watch(stopping.stop, on_step=stop)
    with host_slots(host, disks=1, copies=1, watch=Watch()):
        with pytest.raises(Refused, match="weren't free in time"), host_slots(host, 1, 1, Watch(), wait_seconds=0):
            pass
        with pytest.raises(Stopped, match=host), host_slots(host, 1, 1, telling):
            pass
    assert len(steps) == 1 and host in steps[0]
    assert slots(host) == (1, 0)
