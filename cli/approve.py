"""`snapferry approve`"""

from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.following import NoFollow, follow_run, say, slug_of
from snapferry.cli.naming import check_typed_name
from snapferry.cli.output import Json
from snapferry.errors import PlanError

if TYPE_CHECKING:
    from snapferry.deployments import Gate

_Vm = Annotated[str | None, typer.Argument(metavar="[VM]", help="The VM; not needed where one gate waits.")]


def command(
    vm: _Vm = None,
    at: Annotated[
        str, typer.Option(metavar="TIME", help="now, or a time such as '2026-01-31 22:00', in the plan's zone.")
    ] = "now",
    decline: Annotated[bool, typer.Option("--decline", help="Say no: the run ends, the VM stays warm.")] = False,
    name: Annotated[str | None, typer.Option(help="The VM's name again, for scripts: nothing is asked.")] = None,
    no_follow: NoFollow = False,
    json: Json = False,
) -> None:
    """Answers the gate of a migration: shows the rounds, asks for the VM's name.

    [bold]Example:[/] snapferry approve web01 --at '2026-01-31 22:00'
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from snapferry.deployments import CutoverAnswer, answer_gate

    gate = find_gate(vm)
    Console(stderr=True).print(Markdown(gate.text))
    why = "The run ends without a cutover." if decline else f"The VM is stopped and moved ({at})."
    typed = check_typed_name(gate.vm, name, why)
    answer_gate(gate.flow_run_id, CutoverAnswer(approve=not decline, vm=typed, when=at))
    say("Declined." if decline else "Approved.")
    if not no_follow:
        follow_run(gate.flow_run_id, json=json)


def find_gate(vm: str | None) -> "Gate":
    """The gate that waits for a VM, or the only one that waits.

    Raises:
        PlanError: none waits, or several.
        Refused: Prefect doesn't answer.
    """
    from snapferry.deployments import waiting_gates

    waiting = waiting_gates()
    found = [one for one in waiting if vm is None or slug_of(vm) == slug_of(one.vm)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{one.vm} ({one.run_name}, since {one.asked:%Y-%m-%d %H:%M} UTC)" for one in waiting) or "none"
    what = "Several gates wait" if found else "No gate waits"
    where = f" for {vm!r}" if vm else ""
    raise PlanError(f"{what}{where}. Waiting: {names}.", "Name a VM whose gate waits; answer older runs in the UI.")
