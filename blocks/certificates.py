"""Certificates as an operator pastes them into a form or names them in the environment."""

import re
from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(?P<body>[A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


def mend_pem(text: str | None) -> str | None:
    """PEM with its line breaks back: a form's single line turns them into spaces.

    Returns:
        The certificates of `text`; None for None or blank text.

    Raises:
        ValueError: there is no certificate in it.
    """
    if text is None or not text.strip():
        return None
    bodies = ["".join(found["body"].split()) for found in _PEM.finditer(text)]
    if not bodies:
        raise ValueError("no certificate is in it; paste the PEM from BEGIN CERTIFICATE to END CERTIFICATE")
    return "".join(_pem(body) for body in bodies)


def read_pem(path_or_text: str) -> str:
    """PEM from the environment: the text itself, or the path of its file.

    Raises:
        OSError: the file can't be read.
    """
    return path_or_text if "-----BEGIN" in path_or_text else Path(path_or_text).read_text(encoding="utf-8")


def _pem(body: str) -> str:
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
