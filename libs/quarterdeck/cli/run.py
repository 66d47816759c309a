"""`quarterdeck run`: the main job from start to end, in one command that leaves nothing running."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from quarterdeck.cli.asking import decide_in_terminal, decide_unattended, show_prompt
from quarterdeck.cli.desk import Desk, report_desk
from quarterdeck.cli.instance import instance
from quarterdeck.cli.invocation import Invocation
from quarterdeck.cli.out import show_error, working, write_json
from quarterdeck.cli.story import Story
from quarterdeck.cli.summary import show_line, show_summary
from quarterdeck.client import Client
from quarterdeck.client.files import read_input, upload_inputs
from quarterdeck.client.summaries import Narrator
from quarterdeck.client.workspace import apply, resolve_model
from quarterdeck.contracts.approval import (
    ApprovalCancelled,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
)
from quarterdeck.contracts.budget import ShowBudget
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.eval import MetricsRecorded
from quarterdeck.contracts.journal import ReadView, VerifyJournal, VerifyReply
from quarterdeck.contracts.mission import SubmitMission
from quarterdeck.contracts.vault import PutSecret
from quarterdeck.kernel.errors import QuarterdeckError, Refused, SetupProblem
from quarterdeck.kernel.money import parse_usd
from quarterdeck.telemetry.logs import configure

EXAMPLE = Path("examples/analyst")
GOAL = (
    "Profile the data file in /inputs: what it holds, what is missing, what stands out. Write what you found "
    "to outputs/report.md for a reader who has never seen the data, then publish the report."
)
EVAL_WAIT_S = 10.0
VERDICT_WAIT_S = 0.3
INTERRUPTED = 130
INTERRUPT_WAIT_S = 10.0
DISK_LOOK_S = 1.0
DISK_NEEDED_BYTES = 256 << 10
PROVIDER_KEYS = {
    "openai": ("OPENAI_API_KEY", "api.openai.com:443"),
    "anthropic": ("ANTHROPIC_API_KEY", "api.anthropic.com:443"),
}
VERIFY_TIMEOUT_S = 60.0


async def run(
    invocation: Invocation,
    *,
    input_file: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="Your own CSV. Default: the shipped one.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="USD", help="What the mission may spend. Try 0.02 to see a refusal."),
    ] = None,
    transcript: Annotated[
        str | None, typer.Option(metavar="NAME", help="Recorded model: steady (default) or detour.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="PROVIDER:MODEL", help="A live model, e.g. ollama:llama3.2.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Approve without asking, by command, and say so.")
    ] = False,
    example: Annotated[Path, typer.Option(help="The example's folder.", hidden=True)] = EXAMPLE,
) -> int:
    """Run the main job: an analyst agent profiles a file and publishes its report, under all governance.

    Starts what is not running, follows the mission live, ends with a summary, stops what it started.
    """
    if not (example / "workspace.yaml").is_file():
        raise SetupProblem(
            f"{example} is not here",
            code="QD-CLI-005",
            hint="run this in the folder that the project was cloned to",
        )
    path = input_file or next(iter(sorted((example / "inputs").glob("*.csv"))))
    content = read_input(path)
    limit = parse_usd(budget) if budget is not None else None
    chosen = model or (f"recorded:{example / 'transcripts' / (transcript + '.json')}" if transcript else None)
    invocation.home.prepare()
    async with contextlib.AsyncExitStack() as running:
        with working(invocation.err, "starting the bus and the services"):
            client = await running.enter_async_context(_bus(invocation))
            desk = await running.enter_async_context(report_desk(example, invocation.home.path / "desk"))
            await _declare(client, example, desk)
            await _tell_of_earlier(invocation, client)
            if model is not None:
                await _provider_key(client, model)
            mission = SubmitMission(
                id=client.wire.ids.new(),
                crew="analysts",
                goal=GOAL,
                inputs=await upload_inputs(client, [(path, content)]),
                budget_microusd=limit,
                model=await resolve_model(client, chosen) if chosen is not None else None,
            )
        return await _mission(invocation, client, mission, attended=not yes and sys.stdin.isatty())


async def _mission(invocation: Invocation, client: Client, mission: SubmitMission, *, attended: bool) -> int:
    """Submit, follow, sum up. 0 only when the mission completed and the journal verified."""
    story = Story()
    interrupted = _on_interrupt(client, story, mission)
    verified: VerifyReply | None = None
    with contextlib.suppress(Refused):  # on record as mission.refused, which the story tells
        await client.submit(mission)
    assert mission.id is not None
    await _while_there_is_space(
        invocation.home.path, _follow(invocation, client, story, mission.id, attended)
    )
    saved = await _save(client, story, invocation.home.missions / mission.id)
    with working(invocation.err, "verifying the journal"):
        verified = await client.ask(VerifyJournal(), timeout_s=VERIFY_TIMEOUT_S)
        budget = await client.ask(ShowBudget(mission_id=mission.id))
    if invocation.json:
        write_json(_result(story, verified, saved))
    else:
        show_summary(
            invocation.out, story, budget=budget, verified=verified, saved=saved, data_dir=invocation.data_dir
        )
    if interrupted.is_set():
        return INTERRUPTED
    return 0 if story.status == "completed" and verified is not None and verified.ok else 1


async def _while_there_is_space(path: Path, following: Coroutine[Any, Any, None]) -> None:
    """A mission on a full disk neither goes on nor ends. Raises SetupProblem (QD-SET-008) then."""
    task = asyncio.create_task(following)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=DISK_LOOK_S)
            if not task.done() and shutil.disk_usage(path).free < DISK_NEEDED_BYTES:
                raise SetupProblem(
                    f"the disk of {path} is full: nothing can be recorded any more",
                    code="QD-SET-008",
                    hint="free some space and run again; nothing that was acknowledged is lost",
                )
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(
    invocation: Invocation, client: Client, story: Story, mission_id: str, attended: bool
) -> None:
    """Show every event as it comes, see to approvals, and stop when the mission is over and judged."""
    deciding: dict[str, asyncio.Task[None]] = {}
    narrator = Narrator()
    try:
        async with asyncio.timeout(None) as deadline:
            async with contextlib.aclosing(
                client.events(f"evt.*.{client.workspace}.{mission_id}.>")
            ) as events:
                async for recorded in events:
                    story.add(recorded)
                    if not invocation.json:
                        _show(invocation, recorded, narrator, asking=attended and _open(deciding))
                    _see_to_approval(invocation, client, recorded, deciding, attended)
                    if story.status == "refused":
                        return
                    if story.over and deadline.when() is None:
                        deadline.reschedule(asyncio.get_running_loop().time() + EVAL_WAIT_S)
                    if isinstance(recorded.event, MetricsRecorded):
                        # What follows from the numbers was written with them, in one batch.
                        deadline.reschedule(asyncio.get_running_loop().time() + VERDICT_WAIT_S)
                    for task in [t for t in deciding.values() if t.done() and not t.cancelled()]:
                        task.result()
    except TimeoutError:
        if not story.evaluated and story.status != "refused":
            invocation.note("the mission is over, but its eval has not spoken within its time")
    finally:
        for task in deciding.values():
            task.cancel()
        await asyncio.gather(*deciding.values(), return_exceptions=True)


def _open(deciding: dict[str, asyncio.Task[None]]) -> bool:
    return any(not task.done() for task in deciding.values())


def _show(invocation: Invocation, recorded: Recorded, narrator: Narrator, *, asking: bool) -> None:
    """A line for an event. A question that stands on the screen is repeated below it."""
    if asking:
        invocation.err.print()
    show_line(invocation.err, recorded, narrator)
    if asking and not isinstance(recorded.event, ApprovalDecided | ApprovalExpired | ApprovalCancelled):
        show_prompt(invocation)


def _see_to_approval(
    invocation: Invocation,
    client: Client,
    recorded: Recorded,
    deciding: dict[str, asyncio.Task[None]],
    attended: bool,
) -> None:
    match recorded.event:
        case ApprovalRequested() as asked:
            job = (
                decide_in_terminal(invocation, client, asked)
                if attended
                else decide_unattended(invocation, asked)
            )
            deciding[asked.approval_id] = asyncio.create_task(_said(invocation, job))
        case ApprovalDecided() | ApprovalExpired() | ApprovalCancelled() as ended:
            # Decided, here or by somebody else: the question at this terminal is withdrawn.
            task = deciding.get(ended.approval_id)
            if task is not None and attended:
                task.cancel()
        case _:
            pass


async def _said(invocation: Invocation, job: Coroutine[Any, Any, None]) -> None:
    """An approval that could not be decided from here stays open: say so, and let the mission wait."""
    try:
        await job
    except QuarterdeckError as error:
        show_error(invocation.err, error, as_json=invocation.json)


def _on_interrupt(client: Client, story: Story, mission: SubmitMission) -> asyncio.Event:
    """Ctrl-C cancels the mission and waits for its end in order; a second one leaves at once."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[Any]] = set()

    def cancel() -> None:
        if interrupted.is_set() or story.over:
            raise KeyboardInterrupt
        interrupted.set()
        loop.call_later(INTERRUPT_WAIT_S, give_up)
        assert mission.id is not None
        pending.add(asyncio.ensure_future(_cancelled(client, mission.id)))

    def give_up() -> None:
        if not story.over:  # on a full disk, or without its service, a mission can't be cancelled
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cancel)
    return interrupted


async def _cancelled(client: Client, mission_id: str) -> None:
    with contextlib.suppress(Refused):  # it was over before
        await client.cancel(mission_id, "interrupted at the terminal")


# -- what a mission needs around it -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _bus(invocation: Invocation) -> AsyncIterator[Client]:
    """What already runs on the data directory, else an instance of our own for as long as the block lasts."""
    async with contextlib.AsyncExitStack() as running:
        if invocation.home.live_instance() is None:
            configure(invocation.home.logs / "quarterdeck.log")
            await running.enter_async_context(instance(invocation.home))
        yield await running.enter_async_context(
            Client.open(data_dir=invocation.data_dir, workspace=invocation.workspace, actor=invocation.actor)
        )


async def _declare(client: Client, example: Path, desk: Desk) -> None:
    """Crews, budgets and policy from the example's file; the desk's credential into the vault."""
    await apply(client, example / "workspace.yaml", {"desk": desk.address})
    credential = PutSecret(name="report-desk", value=desk.token, scope="crew/analysts", hosts=(desk.address,))
    await client.ask(credential)


async def _provider_key(client: Client, model: str) -> None:
    """A provider's key from this process's environment into the vault, whence only the gateway uses it."""
    provider = model.partition(":")[0]
    name, host = PROVIDER_KEYS.get(provider, ("", ""))
    key = os.environ.pop(name, "") if name else ""
    if key:
        await client.ask(PutSecret(name=f"provider-{provider}", value=key, scope="workspace", hosts=(host,)))


async def _tell_of_earlier(invocation: Invocation, client: Client) -> None:
    """Missions that an earlier run left in the middle go on while this one runs: say so, and how they end."""
    missions = await client.ask(ReadView(view="missions"))
    for row in missions.rows:
        if row["status"] in ("running", "waiting", "cancelling"):
            invocation.note(
                f"mission {row['mission_id']} of an earlier run goes on; `quarterdeck up` lets it end, "
                f"`quarterdeck mission cancel {row['mission_id']}` ends it"
            )


async def _save(client: Client, story: Story, directory: Path) -> list[Path]:
    """The mission's outputs, out of the object store, where a person looks for them."""
    saved = []
    for artifact in story.outputs:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / artifact.name
        path.write_bytes(await client.artifacts.get(artifact.sha256))
        saved.append(path)
    return saved


def _result(story: Story, verified: VerifyReply | None, saved: list[Path]) -> dict[str, Any]:
    return {
        "mission_id": story.accepted.mission_id if story.accepted else None,
        "status": story.status,
        "why": story.why,
        "cost_microusd": story.spent_microusd,
        "events": story.events,
        "regression": list(story.regression.metrics) if story.regression else [],
        "verdict": story.compared.verdict if story.compared else None,
        "journal_ok": verified.ok if verified else None,
        "outputs": [str(path) for path in saved],
    }
