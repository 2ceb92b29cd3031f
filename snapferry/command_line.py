"""Commands of ours as they stand in messages: what a person copies into a shell has to be one command there."""

import shlex


def command_line(verb: str, *words: str) -> str:
    """`snapferry status 'web 01'`: names quoted for a POSIX shell, since a VM's may hold anything."""
    marker = ("--",) if any(word.startswith("-") for word in words) else ()
    return shlex.join(("snapferry", verb, *marker, *words))
