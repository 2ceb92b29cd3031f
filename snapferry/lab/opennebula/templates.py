"""`one.template.*`: VM templates. What they refer to is checked when they are instantiated, not before."""

from snapferry.lab.opennebula import life, render
from snapferry.lab.opennebula.access import Call, Op
from snapferry.lab.opennebula.attributes import Attributes
from snapferry.lab.opennebula.errors import Code, OneError
from snapferry.lab.opennebula.expand import Request, build_machine, check_restricted, named_image
from snapferry.lab.opennebula.images import delete as delete_image
from snapferry.lab.opennebula.objects import Kind, Template
from snapferry.lab.opennebula.pools import select
from snapferry.lab.opennebula.registry import Method, Methods
from snapferry.lab.opennebula.shared import changed, check_free, check_name, shared_methods
from snapferry.lab.opennebula.world import now


def _allocate(call: Call, text: str) -> int:
    given = Attributes.parse(text)
    check_restricted(call, given)
    name = given.get("NAME") or ""
    check_name(name)
    check_free(call.world.pool(Kind.TEMPLATE), name, call.user.id)
    return _add(call, name, given.without_empty())


def _add(call: Call, name: str, attributes: Attributes) -> int:
    templates = call.world.templates
    attributes.remove("NAME", "TEMPLATE_ID", "TEMPLATE_NAME")
    it = Template(
        id=templates.next_id(), uid=call.user.id, gid=call.user.gid, name=name, regtime=now(), attributes=attributes
    )
    return templates.add(it).id


def _get(call: Call, template_id: int, op: Op) -> Template:
    template = call.world.templates.get(template_id)
    call.need(op, template)
    return template


def _info(call: Call, template_id: int, extended: bool = False, decrypt: bool = False) -> str:
    return render.template(call.world, _get(call, template_id, Op.READ))


def _pool(call: Call, who: int, first: int, last: int) -> str:
    chosen = select(call, call.world.templates, who, first, last)
    return f"<VMTEMPLATE_POOL>{''.join(render.template(call.world, it) for it in chosen)}</VMTEMPLATE_POOL>"


def _update(call: Call, template_id: int, text: str, mode: int = 0) -> int:
    template = _get(call, template_id, Op.MANAGE)
    new = changed(template.attributes, text, mode)
    check_restricted(call, new)
    template.attributes = new
    return template_id


def _delete(call: Call, template_id: int, with_images: bool = False) -> int:
    """Deletes it, and if asked its images; it is gone even where one of those stays."""
    template = _get(call, template_id, Op.MANAGE)
    call.world.templates.drop(template_id)
    if with_images:
        for disk in template.attributes.vectors("DISK"):
            try:
                image = named_image(call, disk)
                if image:
                    delete_image(call, image.id)
            except OneError:
                continue  # the frontend logs it and deletes the template all the same
    return template_id


def _clone(call: Call, template_id: int, name: str, with_images: bool = False) -> int:
    template = _get(call, template_id, Op.USE)
    if with_images:
        raise OneError(Code.ACTION, "This frontend clones templates without their images only.")
    check_name(name)
    check_free(call.world.pool(Kind.TEMPLATE), name, call.user.id)
    return _add(call, name, template.attributes.copy())


def _instantiate(
    call: Call, template_id: int, name: str = "", hold: bool = False, extra: str = "", persistent: bool = False
) -> int:
    template = call.world.templates.get(template_id)
    if persistent:
        raise OneError(Code.ACTION, "This frontend doesn't make persistent copies of a template.")
    attributes = template.attributes.copy()
    if extra:
        more = Attributes.parse(extra)
        check_restricted(call, more)
        attributes.merge(more)
    call.need(Op.USE, template)
    try:
        machine = build_machine(call, Request(attributes, name, hold, template.id, template.name))
    except OneError as error:
        if error.code is Code.AUTHORIZATION:
            raise
        message = f"Error allocating a new virtual machine template. {error.message}"
        raise OneError(Code.ALLOCATE, message) from error
    life.waiting(call.world, machine)
    return machine.id


METHODS: Methods = {
    "template.allocate": Method("s", 1, _allocate),
    "template.info": Method("ibb", 1, _info),
    "templatepool.info": Method("iii", 3, _pool),
    "template.update": Method("isi", 2, _update),
    "template.delete": Method("ib", 1, _delete),
    "template.clone": Method("isb", 2, _clone),
    "template.instantiate": Method("isbsb", 1, _instantiate),
} | shared_methods("template", Kind.TEMPLATE)
