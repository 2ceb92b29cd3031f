"""XML-RPC as the frontend speaks it."""

from typing import Any, NamedTuple
from xml.parsers.expat import ErrorString, ExpatError, errors
from xml.sax.saxutils import escape
from xmlrpc import client

from snapferry.lab.opennebula.errors import CallFault, OneError
from snapferry.lab.opennebula.registry import Answer

_INVALID_TOKEN = errors.codes[errors.XML_ERROR_INVALID_TOKEN]


class Request(NamedTuple):
    """A method's name and its parameters, the session first."""

    method: str
    parameters: tuple[Any, ...]


def parse(body: bytes) -> Request:
    """Raises CallFault (-503) for what isn't an XML-RPC call."""
    try:
        parameters, method = client.loads(body)
    except ExpatError as error:
        message = f'Call is not valid XML.  Invalid XML "content".  {_xml_problem(body, error)}'
        raise CallFault(-503, f"Call XML not a proper XML-RPC call.  {message}") from error
    except (client.ResponseError, client.Fault, ValueError, IndexError, TypeError) as error:
        raise CallFault(-503, f"Call XML not a proper XML-RPC call.  {error}") from error
    if not method:
        raise CallFault(-503, "Call XML not a proper XML-RPC call.  There is no method name.")
    return Request(method, tuple(parameters))


def _xml_problem(body: bytes, error: ExpatError) -> str:
    """The frontend quotes the text from the bad character on."""
    if error.code != _INVALID_TOKEN:
        return ErrorString(error.code)
    line = body.split(b"\n")[: error.lineno]
    at = len(b"\n".join(line)) - len(line[-1]) + error.offset
    token = body[at : at + 40].decode(errors="replace").encode("unicode_escape").decode()
    return f"Problem with token at '{token}...': Invalid token, starting 0 bytes in"


def success(answer: Answer) -> bytes:
    """`[true, answer, 0]`."""
    if isinstance(answer, bool):
        value = f"<boolean>{int(answer)}</boolean>"
    elif isinstance(answer, int):
        value = f"<i4>{answer}</i4>"
    else:
        value = f"<string>{escape(answer)}</string>"
    return _array("<boolean>1</boolean>", value, "<i4>0</i4>")


def failure(method: str, error: OneError) -> bytes:
    """`[false, message, code, id, -1]`."""
    message = f"<string>{escape(f'[{method}] {error.message}')}</string>"
    return _array(
        "<boolean>0</boolean>", message, f"<i4>{error.code:d}</i4>", f"<i4>{error.object_id}</i4>", "<i8>-1</i8>"
    )


def fault(error: CallFault) -> bytes:
    return _response(
        "<fault>",
        "<value><struct>",
        "<member><name>faultCode</name>",
        f"<value><i4>{error.code}</i4></value></member>",
        "<member><name>faultString</name>",
        f"<value><string>{escape(error.message)}</string></value></member>",
        "</struct></value>",
        "</fault>",
    )


def _array(*values: str) -> bytes:
    elements = (f"<value>{value}</value>" for value in values)
    return _response(
        "<params>", "<param><value><array><data>", *elements, "</data></array></value></param>", "</params>"
    )


def _response(*lines: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return "\r\n".join((head, "<methodResponse>", *lines, "</methodResponse>", "")).encode()
