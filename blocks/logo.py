"""The blocks' logo, and what is registered of a block type that carries it."""

from prefect.blocks.core import Block
from prefect.client.schemas.objects import BlockType

LOGO = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAGAAAABgBAMAAAAQtmoLAAAAMFBMVEX///////7/vlXP5fSesqtisOiSpKBbmcckQVsTLUURKkIQ"
    "KkQQKkMQKkIPKkMKJD7u9LemAAACWklEQVR42u2WMWgUQRiF39wdF/Bw2TNgGkMOLMTisovXpdAUQbAIQRArC6sIV2llE7AWG20C"
    "XiNoFQJCUoSIqaxjWLNgpXG5UpBdPEQIdzsWOzszu97M7BZpwk4ze3fz7n0z88+bJYco12qoBJWgEpydoHZSUjC+F5QSxM7juJxD"
    "tL9WctLjTU/+2DCvy+svfrllPc1YGBxO6ELOwiBYQQs43bzo6gSh9LwNCmDgCQvyf7b2JPzrSb9hddQO9Ll4tln/6uNQKaCL61It"
    "tJPu7yd01A4/IgHMBOPflmbS6SipzTw41ggoUguSIq2/dQvtA23f7mAANPt+wdKg154+AfDoXfFaGkRAs+8WF5CcQZHybvRLlved"
    "HcMB4ovJ2otdtSAEYtAoo54JO5m/y1RrG8DkvfTF3M0re7ETqQT0CADu29KqAkDDUSBR61sA4CA/qSVPuQ9BdT+cW0FDytPYUh3t"
    "UIRaIqitJD/0po63HwIAfgWiWuffZJIxb5CU9+VF4fD1g2ee7UZkcwd/+MwoaI58gTTptmzDeHpr1RVI9S0niPT5dGk5uw93icFh"
    "xOKPnelJt0W1421GlDrUtxztJEh9OV8aBqaUiMeMgYkTcQc9kyCSqlXLxIlE8mmZBJFw0DFJRPIB0jAJIimMNUwSkeSgZpKJ5Lj3"
    "hy8VDn9GU19/Jt0LCsGaIMpeKAcKwdy8nROE6Qvb9PbzWJz4RMAO/2eFoCeFATnkd5s5wxx2RNndZmxLnpvuQ3DG2UrQKzTWWkgn"
    "TW4UEnznq8Ry1tSu2jzIZmerS/G8C/4BD52nLwthEgsAAAAASUVORK5CYII="
)
"""A ferry, 96 x 96 pixels."""


def block_type(block: type[Block]) -> BlockType:
    """What is registered of a block type: everything but the logo.

    Prefect 3.8's client takes only http(s) addresses where it reads a block type back, so a data: URI on the server
    would break `load` for every client, and a logo on the web wouldn't show where the server has no way out.
    """
    return BlockType(
        name=block.get_block_type_name(),
        slug=block.get_block_type_slug(),
        documentation_url=block._documentation_url,
        description=block.get_description(),
        code_example=block.get_code_example(),
    )
