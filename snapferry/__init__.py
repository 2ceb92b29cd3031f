"""Snapferry moves running virtual machines from VMware vCenter to OpenNebula/KVM with almost no downtime."""

import os

__version__ = "0.1.0"

# Nothing here multiplies matrices: in each process numpy would start threads for that, which spin for 0.1 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
