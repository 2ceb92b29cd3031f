"""`snapferry doctor`"""

from typing import TYPE_CHECKING, Annotated

import typer

from snapferry.cli.output import Json, show, show_json, table

if TYPE_CHECKING:
    from snapferry.doctor import Finding


def command(
    vm: Annotated[str | None, typer.Argument(metavar="[VM]", help="A VM whose privileges are checked.")] = None,
    vcenter: Annotated[str, typer.Option(metavar="BLOCK", help="Prefect block that knows the source.")] = "vcenter",
    opennebula: Annotated[
        str, typer.Option(metavar="BLOCK", help="Prefect block that knows the target.")
    ] = "opennebula",
    json: Json = False,
) -> None:
    """Checks Prefect, worker, blocks, both logins, privileges, storage, versions.

    Run it where the worker runs, as the worker's user. Changes nothing. Ends with 3 where something is amiss.

    [bold]Example:[/] snapferry doctor web01
    """
    from snapferry.cli.checks import check_opennebula, check_prefect, check_vcenter, check_versions

    found = [*check_versions(), *check_prefect(), *check_vcenter(vcenter, vm), *check_opennebula(opennebula)]
    findings = list(dict.fromkeys(found))  # both blocks are as silent as the server that has them
    if json:
        show_json([*findings])
    else:
        _show(findings)
    if not all(one.ok for one in findings):
        raise typer.Exit(3)


def _show(findings: "list[Finding]") -> None:
    show(table("", "found", "what to do", rows=[("ok" if one.ok else "NO", one.what, one.advice) for one in findings]))
