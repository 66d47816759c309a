"""`quarterdeck apply`: a workspace's file brought into force."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from quarterdeck.cli.invocation import Invocation
from quarterdeck.cli.listing import Listing
from quarterdeck.cli.out import cell, working, write_json
from quarterdeck.cli.session import session
from quarterdeck.cli.variables import Variables, variables
from quarterdeck.kernel.errors import SetupProblem

if TYPE_CHECKING:
    from quarterdeck.client.workspace import Change

STYLES = {"set": "green", "uploaded": "dim", "unchanged": "dim", "missing": "yellow", "differs": "yellow"}


async def apply(
    call: Invocation,
    *,
    file: Annotated[Path, typer.Option("--file", "-f", metavar="YAML", help="The workspace file.")],
    settings: Variables = None,
) -> None:
    """Declare a workspace from a file: crews and their tools, budgets, approval policy.

    Checked as a whole before anything is sent, and a second time changes nothing. Secrets are named in the
    file, never given there: those that are missing are listed, with the command that keeps them.
    """
    # pydantic and PyYAML take a fifth of a second that --help should not pay.
    from quarterdeck.client.workspace import apply_file  # noqa: PLC0415
    from quarterdeck.client.workspacefile import WorkspaceFile  # noqa: PLC0415

    given = variables(settings)
    read = WorkspaceFile(file, given)
    if call.workspace_given and call.workspace != read.workspace:
        raise SetupProblem(
            f"{file} is for the workspace {read.workspace!r}, not {call.workspace!r}",
            code="QD-CLI-027",
            hint=f"leave out --workspace, or say -w {read.workspace}",
        )
    call = replace(call, workspace=read.workspace)
    async with session(call) as client:
        with working(call.err, f"applying {file.name} to {call.workspace}"):
            changes = await apply_file(client, read)
    if call.json:
        write_json({"workspace": call.workspace, "changes": changes})
        return
    grid = Listing("what", "~name", "outcome", "~detail")
    for change in changes:
        style = STYLES[change.outcome]
        grid.row(
            cell(change.kind), cell(change.name), Text(change.outcome, style), cell(change.detail, "dim")
        )
    call.out.print(grid)
    _say_what_is_missing(call, file, changes)


def _say_what_is_missing(call: Invocation, file: Path, changes: "Sequence[Change]") -> None:
    for change in changes:
        if change.kind != "secret" or change.outcome not in ("missing", "differs"):
            continue
        why = (
            "is not kept yet"
            if change.outcome == "missing"
            else "is kept with another scope, use, host or tier"
        )
        call.err.print(Text.assemble(("secret ", "yellow"), cell(change.name, "bold"), f" {why}: "), end="")
        call.err.print(
            cell(f"quarterdeck -w {call.workspace} secret put {change.name} -f {file}"), soft_wrap=True
        )
