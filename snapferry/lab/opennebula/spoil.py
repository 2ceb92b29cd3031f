"""What somebody does by hand to the attributes that a migration keeps."""

from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.world import World

OURS = "SNAPFERRY"
"""How the names of a migration's attributes begin."""


def spoil(world: World, method: str) -> None:
    """Does what the faults `record_wiped` and `record_edited` say; the caller holds the world's lock."""
    wiped, edited = world.faults.strikes("record_wiped", method), world.faults.strikes("record_edited", method)
    for template in world.templates:
        if wiped is not None and template.name == wiped["vm"]:
            template.attributes = Attributes([pair for pair in template.attributes if not pair[0].startswith(OURS)])
    for image in world.images:
        if edited is not None and image.name.startswith(edited["vm"]):
            image.attributes.set("SNAPFERRY_BASE", {"STATE": "warm", "CHANGE_ID": "yesterday's", "ROUND": "many"})
