"""One short function a message. What runs in this process is in `_live`; the truth is in the log."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from quarterdeck.chassis import Bus
from quarterdeck.contracts.envelope import Command, Meta, Recorded
from quarterdeck.contracts.mission import IssueToken, MissionParked, MissionResumed, TokenReply
from quarterdeck.contracts.registry import Reply
from quarterdeck.contracts.sandbox import ObserveSandbox, StartSandbox, StopSandbox
from quarterdeck.contracts.vault import LeaseGranted
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.kernel.errors import QuarterdeckError, Rejected, Unavailable
from quarterdeck.sidecar.handover import hand_over
from quarterdeck.telemetry.tracing import current_traceparent
from services.sandbox.domain import State
from services.sandbox.ports import (
    EDGE_PORT,
    SEARCH_PATH,
    Driver,
    Exit,
    Folders,
    Limits,
    Mount,
    RunFiles,
    Sandbox,
    SandboxSpec,
)

log = structlog.get_logger("quarterdeck.sandbox")
TAIL_CHARACTERS = 4_000
GATEWAY_PATIENCE_S = 30.0
WITHHELD = "(output withheld: the run had fetched a secret)"


@dataclass(eq=False)
class _Live:
    """A run in this process."""

    start: StartSandbox
    workspace: str
    sandbox: Sandbox | None = None
    stop_asked: bool = False
    held_secret: bool = False
    task: asyncio.Task[None] | None = None


class Handlers:
    def __init__(
        self, events: EventLog[State], bus: Bus, driver: Driver, *, folders: Folders, gateway_socket: Path
    ) -> None:
        self._events = events
        self._bus = bus
        self._driver = driver
        self._folders = folders
        self._gateway_socket = gateway_socket
        self._live: dict[str, _Live] = {}
        self._closing = False

    async def reconcile(self) -> None:
        """At start: what the log holds for running and this process does not run was lost."""
        await self._driver.sweep(())
        for workspace in await self._events.workspaces():
            for run_id in sorted((await self._events.state(workspace)).open):
                await self._observe(workspace, ObserveSandbox(mission_id="-", run_id=run_id, kind="lost"))

    async def start(self, command: Command) -> Reply | Rejected:
        body = command.body
        assert isinstance(body, StartSandbox)
        reply = await self._events.handle(command)
        run = (await self._events.state(command.workspace)).runs[body.run_id]
        if run.status == "requested" and body.run_id not in self._live:
            live = _Live(body, command.workspace)
            self._live[body.run_id] = live
            live.task = asyncio.create_task(self._run(live))
        return reply

    async def stop(self, command: Command) -> Reply | Rejected:
        body = command.body
        assert isinstance(body, StopSandbox)
        reply = await self._events.handle(command)
        live = self._live.get(body.run_id)
        if live is not None:
            live.stop_asked = True
            if live.sandbox is not None:
                await live.sandbox.stop()
        return reply

    async def parked(self, recorded: Recorded) -> None:
        """A person is being asked: the run's clock is held meanwhile."""
        for live in self._of(recorded, MissionParked):
            if live.sandbox is not None:
                live.sandbox.hold_clock()

    async def resumed(self, recorded: Recorded) -> None:
        for live in self._of(recorded, MissionResumed):
            if live.sandbox is not None:
                live.sandbox.release_clock()

    async def lease_granted(self, recorded: Recorded) -> None:
        """From now on the run's output may hold a secret: it is kept out of the journal."""
        event = recorded.event
        assert isinstance(event, LeaseGranted)
        live = self._live.get(event.run_id)
        if live is not None and event.use == "fetched":
            live.held_secret = True

    async def close(self) -> None:
        """The service stops: its sandboxes are lost with it, on record, and their tasks are tried again."""
        self._closing = True
        for live in list(self._live.values()):
            if live.sandbox is not None:
                await live.sandbox.stop(grace_ms=500)
        tasks = [live.task for live in self._live.values() if live.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        await self._driver.close()

    def _of(self, recorded: Recorded, what: type[MissionParked] | type[MissionResumed]) -> list[_Live]:
        event = recorded.event
        assert isinstance(event, what)
        return [live for live in self._live.values() if live.start.mission_id == event.mission_id]

    # -- a run --------------------------------------------------------------------------------------------

    async def _run(self, live: _Live) -> None:
        start = live.start
        try:
            outcome = await self._from_start_to_end(live)
        except QuarterdeckError as error:
            log.warning(
                "sandbox could not be started", run=start.run_id, code=error.code, error=error.message
            )
            outcome = ObserveSandbox(
                mission_id=start.mission_id,
                run_id=start.run_id,
                kind="unstartable",
                code=error.code,
                message=error.message + (f" ({error.hint})" if error.hint else ""),
            )
        except Exception as error:  # whatever broke, the mission must hear that its run is over
            log.exception("sandbox failed", run=start.run_id)
            outcome = ObserveSandbox(
                mission_id=start.mission_id,
                run_id=start.run_id,
                kind="unstartable",
                code="QD-SBX-002",
                message=f"an unexpected {type(error).__name__}; see the service's log",
            )
        finally:
            self._live.pop(start.run_id, None)
        await self._observe(live.workspace, outcome)

    async def _from_start_to_end(self, live: _Live) -> ObserveSandbox:
        start = live.start
        files = await self._folders.prepare(start)
        try:
            sandbox = await self._driver.start(spec_of(start, files))
            live.sandbox = sandbox
            with sandbox.edge:
                try:
                    await self._open_edge(live, sandbox)
                except BaseException:
                    await sandbox.stop(grace_ms=0)
                    raise
                ended = await sandbox.wait()
            return await self._ended(live, files, ended)
        finally:
            await self._folders.remove(files)

    async def _open_edge(self, live: _Live, sandbox: Sandbox) -> None:
        """Give the way out to the gateway, with the token of this run: none ever enters the sandbox."""
        start = live.start
        asked = IssueToken(mission_id=start.mission_id, run_id=start.run_id)
        token: TokenReply = await self._bus.wire.ask(live.workspace, asked)
        await self._handed_over(sandbox, token.token)
        started = ObserveSandbox(
            mission_id=start.mission_id,
            run_id=start.run_id,
            started=True,
            driver=sandbox.driver,
            limits_held=sandbox.limits_held,
        )
        await self._observe(live.workspace, started)
        if live.stop_asked:
            await sandbox.stop()

    async def _handed_over(self, sandbox: Sandbox, token: str) -> None:
        """A gateway that is just starting (again) is waited for: meanwhile the agent's calls queue up."""
        deadline = asyncio.get_running_loop().time() + GATEWAY_PATIENCE_S
        while True:
            try:
                return await hand_over(self._gateway_socket, sandbox.edge, token)
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _ended(self, live: _Live, files: RunFiles, ended: Exit) -> ObserveSandbox:
        tail = (
            WITHHELD if live.held_secret else ended.output_tail.decode("utf-8", "replace")[-TAIL_CHARACTERS:]
        )
        return ObserveSandbox(
            mission_id=live.start.mission_id,
            run_id=live.start.run_id,
            kind="lost" if self._closing and ended.kind == "stopped" else ended.kind,
            exit_code=ended.code,
            wall_ms=ended.wall_ms,
            peak_memory_bytes=ended.peak_memory_bytes,
            outputs=await self._folders.collect(files),
            output_tail=tail or ended.detail,
        )

    async def _observe(self, workspace: str, seen: ObserveSandbox) -> None:
        """Put on record; while the log can't take it, tried again, because nobody else knows it."""
        stage = seen.kind or "started"
        meta = Meta(
            id=f"{stage}-{seen.run_id}",
            at_ms=self._bus.clock.now_ms(),
            actor="service:sandbox",
            traceparent=current_traceparent(),
        )
        for delay_s in (0.1, 0.5, 1, 2, 5, 10, 20):
            try:
                await self._events.handle(Command(workspace=workspace, body=seen, meta=meta))
                return
            except QuarterdeckError as error:
                log.warning("not recorded yet", run=seen.run_id, stage=stage, error=str(error))
                await asyncio.sleep(delay_s)
        log.error("not recorded: the run is found lost at the next start", run=seen.run_id, stage=stage)


def spec_of(start: StartSandbox, files: RunFiles) -> SandboxSpec:
    """What the driver is to run. The environment is all that an agent is told; it holds no secret."""
    edge = f"http://127.0.0.1:{EDGE_PORT}"
    return SandboxSpec(
        run_id=start.run_id,
        argv=start.argv,
        env={
            "HOME": "/work",
            "PATH": SEARCH_PATH,
            "TMPDIR": "/tmp",  # noqa: S108  # inside the sandbox, where it is the run's own
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENAI_BASE_URL": f"{edge}/v1",
            "OPENAI_API_KEY": "mission",
            "ANTHROPIC_BASE_URL": edge,
            "ANTHROPIC_API_KEY": "mission",
            "MCP_URL": f"{edge}/mcp",
            "SECRETS_URL": f"{edge}/secrets",
            "MODEL": "mission",
            "MISSION_GOAL": start.goal,
        },
        work_dir=str(files.work),
        mounts=(
            Mount(source=str(files.program), target="/agent"),
            Mount(source=str(files.inputs), target="/inputs"),
        ),
        limits=Limits(**msgspec.structs.asdict(start.limits)),
    )
