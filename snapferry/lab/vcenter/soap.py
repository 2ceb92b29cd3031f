"""SOAP requests and replies of the vSphere API, on pyVmomi's own types and serialiser.

pyVmomi ships the client's half: it writes requests and reads replies. This is the other half: it reads requests and
writes replies and faults as vCenter's `/sdk` does.
"""

from datetime import datetime
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError, ParserCreate

from pyVmomi import SoapAdapter, VmomiSupport, vim, vmodl

ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<soapenv:Envelope xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/"'
    ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{}</soapenv:Body></soapenv:Envelope>'
)

_NAMESPACES = {**SoapAdapter.SOAP_NSMAP, "urn:vim25": ""}


class MethodInfo(NamedTuple):
    """What the server has to know of a method: its parameters, result and privilege."""

    params: dict[str, Any]
    result: Any
    privilege: str | None
    """None: the method itself decides, by what it is asked to do."""
    name: str = ""
    """As task descriptions have it: `VirtualMachine.createSnapshot`."""


INTERNAL_METHODS: dict[str, MethodInfo] = {
    # Reads one property: what the client does for `vm.config`; in no public WSDL.
    "Fetch": MethodInfo({"prop": str}, object, None),
    # Facts: the reference's page on NFC; not in the public WSDL.
    "NfcGetVmFiles": MethodInfo(
        {"vm": vim.VirtualMachine}, vim.HostServiceTicket, "VirtualMachine.Provisioning.GetVmFiles"
    ),
    "NfcRandomAccessOpenReadonly": MethodInfo(
        {"vm": vim.VirtualMachine, "diskDeviceKey": int, "hostForAccess": vim.HostSystem},
        vim.HostServiceTicket,
        "VirtualMachine.Provisioning.DiskRandomRead",
    ),
    "NfcGetServerNfcLibVersion": MethodInfo({"hostForAccess": vim.HostSystem}, int, "System.View"),
    "RetrieveInternalContent": MethodInfo({}, None, "System.View"),
}


def method_info(name: str) -> MethodInfo | None:
    """The method of that WSDL name; None if there is no such method."""
    if name in INTERNAL_METHODS:
        return INTERNAL_METHODS[name]
    try:
        info = VmomiSupport.GuessWsdlMethod(name).info
    except KeyError:
        return None
    title = f"{VmomiSupport.GetWsdlName(info.type)}.{info.name[0].lower()}{info.name[1:]}"
    return MethodInfo({p.name: p.type for p in info.params}, info.result, info.privId, title)


class Request(NamedTuple):
    """One call as it came."""

    method: str
    info: MethodInfo | None
    this: str
    """The managed object's id."""
    this_type: str
    arguments: dict[str, Any]


class BadRequest(Exception):
    """The request isn't SOAP of the vSphere API."""


class RequestReader(SoapAdapter.ExpatDeserializerNSHandlers):  # type: ignore[misc]
    """Reads one envelope; each parameter's subtree goes to pyVmomi's own deserialiser."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self._version = version
        self._depth = 0
        self._body_depth: int | None = None
        self._method = ""
        self._info: MethodInfo | None = None
        self._this = self._this_type = ""
        self._in_this = False
        self._arguments: dict[str, Any] = {}
        self._pending: tuple[str, bool, Any] | None = None

    def read(self, data: bytes) -> Request:
        """Raises BadRequest."""
        self._parser = ParserCreate(namespace_separator=SoapAdapter.NS_SEP)
        self._parser.buffer_text = True
        SoapAdapter.SetHandlers(self._parser, SoapAdapter.GetHandlers(self))
        try:
            self._parser.Parse(data, True)
        except (ExpatError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise BadRequest(f"{type(error).__name__}: {error}") from error
        self._take_pending()
        if not self._method:
            raise BadRequest("the envelope's body is empty")
        return Request(self._method, self._info, self._this, self._this_type, self._arguments)

    def StartElementHandler(self, tag: str, attributes: dict[str, str]) -> None:
        self._take_pending()
        self._depth += 1
        namespace, _, name = tag.rpartition(SoapAdapter.NS_SEP)
        if namespace == SoapAdapter.XMLNS_SOAPENV:
            if name == "Body":
                self._body_depth = self._depth
        elif self._body_depth is None:
            return  # a header: operationID and the like
        elif self._depth == self._body_depth + 1:
            self._method, self._info = name, method_info(name)
        elif name == "_this":
            self._in_this, self._this_type = True, attributes.get("type", "")
        elif self._info is not None:
            self._hand_over(name, tag, attributes)

    def _hand_over(self, name: str, tag: str, attributes: dict[str, str]) -> None:
        """Lets pyVmomi read the subtree; it puts our handlers back at the subtree's end."""
        assert self._info is not None
        kind = self._info.params.get(name, object)
        is_list = isinstance(kind, type) and issubclass(kind, list)
        inner = SoapAdapter.SoapDeserializer(stub=None, version=self._version)
        self._pending = (name, is_list, inner)
        inner.Deserialize(self._parser, kind.Item if is_list else kind, False, self.nsMap)
        inner.StartElementHandler(tag, attributes)

    def _take_pending(self) -> None:
        if self._pending is None:
            return
        name, is_list, inner = self._pending
        self._pending = None
        self._depth -= 1  # the subtree's end tag went to the inner handlers
        if is_list:
            self._arguments.setdefault(name, []).append(inner.GetResult())
        else:
            self._arguments[name] = inner.GetResult()

    def EndElementHandler(self, _tag: str) -> None:
        self._take_pending()
        self._depth -= 1
        self._in_this = False

    def CharacterDataHandler(self, text: str) -> None:
        if self._in_this:
            self._this += text


def render_reply(method: str, value: Any, kind: Any, version: str) -> bytes:
    """The envelope of a result; None gives a reply without one."""
    body = "" if value is None else _serialise(value, "returnval", kind, version)
    return _envelope(method, body)


def render_internal_content(method: str) -> bytes:
    """The reply of RetrieveInternalContent, as far as anybody outside VMware knows it."""
    return _envelope(method, '<returnval><nfcService type="NfcService">nfcService</nfcService></returnval>')


def render_fault(fault: Any, version: str) -> bytes:
    """The envelope of a vSphere fault."""
    name = VmomiSupport.GetWsdlName(type(fault)) + "Fault"
    info = VmomiSupport.Object(name=name, type=object, version=version, flags=0)
    detail = SoapAdapter.SerializeFaultDetail(complete(fault), info, version, _NAMESPACES)
    detail = detail.replace(f"<{name}", f'<{name} xmlns="urn:vim25"', 1)
    text = SoapAdapter.XmlEscape(fault.msg or "")
    return ENVELOPE.format(
        "<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
        f"<faultstring>{text}</faultstring><detail>{detail}</detail></soapenv:Fault>"
    ).encode()


def _envelope(method: str, body: str) -> bytes:
    return ENVELOPE.format(f'<{method}Response xmlns="urn:vim25">{body}</{method}Response>').encode()


def _serialise(value: Any, name: str, kind: Any, version: str) -> str:
    info = VmomiSupport.Object(name=name, type=kind, version=version, flags=VmomiSupport.F_OPTIONAL)
    text: str = SoapAdapter.SerializeToStr(value, info, version, _NAMESPACES)
    return text.replace(f' versionId="{VmomiSupport.versionIdMap[version]}"', "", 1)


def complete(value: Any) -> Any:
    """Gives every required field that is unset a default, in place: the serialiser refuses objects without them."""
    if isinstance(value, list):
        for item in value:
            complete(item)
    elif isinstance(value, VmomiSupport.DataObject):
        for info in value._GetPropertyList():
            _complete_field(value, info, getattr(value, info.name))
    return value


def _complete_field(owner: Any, info: Any, field: Any) -> None:
    if field is None and not info.flags & VmomiSupport.F_OPTIONAL:
        field = default_of(info.type)
        setattr(owner, info.name, field)
    elif isinstance(field, list) and not isinstance(field, VmomiSupport.Array):
        field = info.type(field)  # read by itself, a list has to know the type of its items
        setattr(owner, info.name, field)
    complete(field)


def default_of(kind: Any) -> Any:
    """The emptiest value of a vSphere type."""
    if issubclass(kind, VmomiSupport.ManagedObject):
        return kind("none")
    if issubclass(kind, VmomiSupport.Enum):
        return kind(kind.values[0])
    if kind is datetime:
        return vim_epoch()
    return kind()


def vim_epoch() -> datetime:
    """vSphere's own "never"."""
    return VmomiSupport.Iso8601.ParseISO8601("1970-01-01T00:00:00Z")  # type: ignore[no-any-return]


def reference(kind: str, moref: str) -> Any:
    """A managed object from the type's WSDL name and its id, whether or not there is such an object."""
    try:
        return VmomiSupport.GuessWsdlType(kind)(moref)
    except KeyError:
        return VmomiSupport.ManagedObject(moref)


def not_found(mo: Any) -> Any:
    """The fault for a managed object that is gone."""
    text = f"The object '{VmomiSupport.GetWsdlName(type(mo))}:{mo._moId}' has already been deleted or has not been"
    return vmodl.fault.ManagedObjectNotFound(obj=mo, msg=f"{text} completely created")
