"""VM templates: kept, updated, locked."""

from snapferry.opennebula import parse
from snapferry.opennebula.attributes import Attributes, check_name, holds, render
from snapferry.opennebula.client import Client
from snapferry.opennebula.errors import CallFailed, NameTaken, NoSuchObject
from snapferry.opennebula.images import update
from snapferry.opennebula.models import Lock, Template

_EVERYTHING = (-2, -1, -1)
_LOCK_LEVEL = 3  # leaves update, rename and instantiate


def list_templates(client: Client) -> list[Template]:
    """All templates that the user may see, with their attributes."""
    return [parse.template(one) for one in client.call("templatepool.info", *_EVERYTHING).iterfind("VMTEMPLATE")]


def read_template(client: Client, template_id: int) -> Template:
    """One template, fresh. Raises NoSuchObject."""
    return parse.template(client.call("template.info", template_id, False))


def create_template(client: Client, name: str, attributes: Attributes) -> Template:
    """Makes a template.

    Looks first: where the name is taken by a template with the same `SNAPFERRY` vector, a killed run made it, and it is
    brought up to date and returned.

    Raises:
        NameTaken: another template has the name.
        BadName, NotRepresentable, NotAllowed: nothing was made.
    """
    text = render({"NAME": check_name(name), **attributes})
    try:
        return read_template(client, int(client.call("template.allocate", text)))
    except NameTaken as error:
        mine = attributes.get("SNAPFERRY")
        found = read_template(client, error.object_id) if mine and error.object_id is not None else None
        if found is None or not holds(found.attributes, {"SNAPFERRY": mine or ""}):
            raise
    update_template(client, found.id, attributes)
    return read_template(client, found.id)


def update_template(client: Client, template_id: int, attributes: Attributes) -> None:
    """Sets attributes, each name whole (all DISKs of the template, say), leaves the others; an empty one is removed.

    Raises:
        NotRepresentable: a value would not come back as it is; nothing was changed.
    """
    update(client, "template", template_id, attributes)


def delete_template(client: Client, template_id: int) -> None:
    """Deletes the template, never its images; gone already is fine. Raises Locked."""
    try:
        client.call("template.delete", template_id, False)
    except NoSuchObject:
        return


def lock_template(client: Client, template_id: int) -> Lock:
    """Takes the template's lock, if nobody has it: an atomic test-and-set, for administrators, too.

    Updates and instantiation stay possible.

    Raises:
        Locked: somebody has it, ourselves included; its `time` says since when.
    """
    client.call("template.lock", template_id, _LOCK_LEVEL, True)
    lock = read_template(client, template_id).lock
    if lock is None:
        raise CallFailed(f"Template {template_id} was locked and isn't.", "Somebody unlocked it; try again.")
    return lock


def unlock_template(client: Client, template_id: int) -> None:
    """Lets the template go; no lock, or no template, is fine."""
    try:
        if read_template(client, template_id).lock is not None:
            client.call("template.unlock", template_id)
    except NoSuchObject:
        return
