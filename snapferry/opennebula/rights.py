"""What the target's user lacks."""

from snapferry.opennebula.client import Client

ADMIN_RIGHTS = {
    "name the MAC of a NIC": "NIC/MAC is a restricted attribute",
    "add address ranges to a network": "needs ADMIN NET",
    "hold addresses of a network": "needs MANAGE NET",
}
"""What a migration with NICs does that OpenNebula keeps for the group oneadmin by default, and why."""


def missing_rights(client: Client) -> list[str]:
    """What the user may not do by default; empty for users of the group oneadmin.

    Access rules and another list of restricted attributes (oned.conf) may give a user more than this says.
    """
    if client.whoami().is_admin:
        return []
    return [f"{what} ({why})" for what, why in ADMIN_RIGHTS.items()]
