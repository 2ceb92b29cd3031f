"""Snapferry moves running virtual machines from VMware vCenter to OpenNebula/KVM with almost no downtime."""

__version__ = "0.1.0"
