"""A simulated OpenNebula frontend (7.4) for the stock pyone client: XML-RPC over HTTPS, with real files.

What it doesn't know: images from PATH, quotas, clusters, ACLs, ceph and qcow2 datastores, snapshots, migration between
hosts, stop and undeploy, marketplaces, persistent instantiation.
"""

from snapferry.lab.opennebula.frontend import Frontend

__all__ = ["Frontend"]
