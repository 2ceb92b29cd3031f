"""What the demo moves: one running VM with two disks, and the plan for it."""

from random import Random

from snapferry.lab import LabConfig
from snapferry.lab.config import LabDisk, LabNic, LabVCenter, LabVm, Workload

VM = "web01"
MIB = 1 << 20
GIB = 1 << 30

PLAN = f"""\
# What `snapferry plan {VM}` writes, in short.
vm: {VM}
image_datastore: default
# So that several rounds are seen: no prediction fits this budget, so the floor decides, and the copy takes its time.
downtime_budget: 30s
floor: 24 MB
max_rounds: 12
rate_limit: 80 MB/s
presync:
  cron: 0 1 * * *
  timezone: Europe/Vienna
"""


def lab_config(seed: int) -> LabConfig:
    """A lab whose VM is off: it is powered on when the first copy is about to begin, and settles down meanwhile.

    Seed 1 has disks of 2 GiB and 1 GiB + 512 bytes; other seeds have other sizes, content and writes, never less.
    """
    random = Random(seed)
    more = [0, 0] if seed == 1 else [512 * random.randrange(1, 256 * MIB // 512) for _ in range(2)]
    disks = (
        LabDisk(capacity_bytes=2 * GIB + more[0], data_bytes=(460 + random.randrange(40)) * MIB, data_runs=400),
        LabDisk(capacity_bytes=GIB + 512 + more[1], data_bytes=(250 + random.randrange(40)) * MIB, data_runs=200),
    )
    workload = Workload(
        start_rate_bytes=(34 + random.randrange(5)) * MIB,
        rate_bytes=6 * MIB,
        settle_seconds=24,
        hot_bytes=(192 + random.randrange(64)) * MIB,
        sequential=random.uniform(0.2, 0.4),
    )
    nic = LabNic(network="VM Network", ip="10.0.5.21")
    vm = LabVm(name=VM, power="off", firmware="efi", disks=disks, nics=(nic,), workload=workload, shutdown_seconds=2)
    return LabConfig(seed=seed, vcenter=LabVCenter(vms=(vm,)))
