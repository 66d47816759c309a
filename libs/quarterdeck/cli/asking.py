"""How `quarterdeck run` gets an approval decided: by the person at the terminal, or by command."""

import asyncio
import os
import shlex
import sys
from pathlib import Path

import msgspec
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from quarterdeck.cli.arguments import show_arguments
from quarterdeck.cli.invocation import Invocation
from quarterdeck.cli.out import plain
from quarterdeck.client import Client
from quarterdeck.contracts.approval import ApprovalRequested, DecideApproval, Outcome
from quarterdeck.kernel.errors import QuarterdeckError, Refused, Unavailable

PROMPT = "[yellow]?[/] [bold]a[/]pprove · [bold]d[/]eny · [bold]s[/]how the arguments "
COMMAND_TIMEOUT_S = 30.0


async def decide_in_terminal(invocation: Invocation, client: Client, asked: ApprovalRequested) -> None:
    """Ask until it is decided: here, or by somebody else, in which case the caller cancels this."""
    err = invocation.err
    about = Text.assemble(
        (f"agent {asked.agent}", "bold"), " wants to call ", (plain(asked.tool), "bold cyan"), "\n",
        ("target  ", "dim"), plain(asked.target), "\n",
        ("rule    ", "dim"), asked.rule, "\n",
        ("digest  ", "dim"), asked.arguments_sha256,
    )  # fmt: skip
    err.print(
        Panel(about, title="a person is asked", title_align="left", border_style="yellow", padding=(0, 1))
    )
    while True:
        show_prompt(invocation)
        word = (await _line()).strip().lower()
        if word in ("s", "show"):
            await _show_arguments(invocation, client, asked)
        elif word in ("a", "approve", "d", "deny"):
            outcome: Outcome = "approved" if word.startswith("a") else "denied"
            if await _decide(invocation, client, asked, outcome):
                return


def show_prompt(invocation: Invocation) -> None:
    """The question in one line; the cursor stays behind it."""
    invocation.err.print(PROMPT, end="")


async def decide_unattended(invocation: Invocation, asked: ApprovalRequested) -> None:
    """Approve by the command that a person would use, and say so. Raises Unavailable when that fails."""
    command = [
        str(Path(sys.executable).parent / "quarterdeck"),
        *("--data-dir", str(invocation.data_dir), "--workspace", invocation.workspace),
        *("--as", invocation.actor.removeprefix("user:")),
        *("approval", "approve", asked.approval_id, "--note", "approved by `run --yes`"),
    ]
    shown = "quarterdeck approval approve " + asked.approval_id
    invocation.err.print(
        f"[yellow]![/] nobody is asked (YES=1 or no terminal); running [bold]{escape(shown)}[/]"
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        said = output.decode(errors="replace").strip()
        raise Unavailable(
            f"`{shlex.join(command[1:])}` ended with {process.returncode}: {said}",
            code="QD-CLI-008",
        )


async def _decide(invocation: Invocation, client: Client, asked: ApprovalRequested, outcome: Outcome) -> bool:
    try:
        await client.decide(DecideApproval(approval_id=asked.approval_id, outcome=outcome))
    except Refused as refusal:
        invocation.err.print(f"[red]{escape(str(refusal))}[/]")
        return True  # decided elsewhere meanwhile, or too late: asking again changes nothing
    except QuarterdeckError as error:
        invocation.err.print(f"[red]{escape(str(error))}[/]")
        return False
    return True


async def _show_arguments(invocation: Invocation, client: Client, asked: ApprovalRequested) -> None:
    try:
        content = await client.artifacts.get(asked.arguments_sha256)
        arguments = msgspec.json.decode(content)
    except (QuarterdeckError, msgspec.DecodeError) as error:
        invocation.err.print(f"[red]the arguments can't be shown: {escape(str(error))}[/]")
        return
    show_arguments(invocation.err, arguments)


async def _line() -> str:
    """A line from standard input that can be cancelled, which a thread in input() can't. EOF denies nothing:
    it raises Unavailable, and the approval stays open for somebody else."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    descriptor = sys.stdin.fileno()

    def arrived() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(descriptor, arrived)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
    text = os.read(descriptor, 4096).decode(errors="replace")
    if not text:
        raise Unavailable("standard input has ended before a decision", code="QD-CLI-009")
    return text
