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
# The demo shows several rounds: no prediction fits this budget, so the floor decides.
downtime_budget: 1s
floor: 40 MB
max_rounds: 12
presync:
  cron: 0 1 * * *
  timezone: Europe/Vienna
"""


def lab_config(seed: int) -> LabConfig:
    """A lab whose VM is off: it is powered on once everything is ready, and settles down while it is copied.

    Seed 1 has disks of 2 GiB and 1 GiB + 512 bytes; other seeds have other sizes, content and writes, never less.
    """
    random = Random(seed)
    more = [0, 0] if seed == 1 else [512 * random.randrange(1, 256 * MIB // 512) for _ in range(2)]
    disks = (
        LabDisk(capacity_bytes=2 * GIB + more[0], data_bytes=(460 + random.randrange(40)) * MIB, data_runs=400),
        LabDisk(capacity_bytes=GIB + 512 + more[1], data_bytes=(250 + random.randrange(40)) * MIB, data_runs=200),
    )
    workload = Workload(
        start_rate_bytes=(40 + random.randrange(8)) * MIB,
        rate_bytes=6 * MIB,
        settle_seconds=30,
        hot_bytes=(64 + random.randrange(32)) * MIB,
        sequential=random.uniform(0.2, 0.4),
    )
    nic = LabNic(network="VM Network", ip="10.0.5.21")
    vm = LabVm(name=VM, power="off", firmware="efi", disks=disks, nics=(nic,), workload=workload, shutdown_seconds=2)
    return LabConfig(seed=seed, vcenter=LabVCenter(vms=(vm,)))
