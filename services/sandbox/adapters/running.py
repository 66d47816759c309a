"""What the sandboxes of all drivers have in common: a clock, an output, one end with one cause."""

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from quarterdeck.contracts.sandbox import ExitKind
from services.sandbox.adapters.lifetime import Lifetime
from services.sandbox.adapters.output import Output
from services.sandbox.ports import Exit, OnOutput, SandboxError, SandboxSpec


class Running(ABC):
    """A `ports.Sandbox`; a driver fills in how its own kind is watched and ended."""

    driver: str

    def __init__(self, spec: SandboxSpec, edge: socket.socket, pid: int, on_output: OnOutput | None) -> None:
        self.run_id, self.edge, self.pid = spec.run_id, edge, pid
        self._spec = spec
        self._output = Output(spec.limits.output_bytes, on_output)

    def _begin(self) -> None:
        """The last line of a driver's constructor: the clock runs."""
        self._life = Lifetime(self._spec.limits, kill=self._kill, sample=self._sample)
        self._end = asyncio.create_task(self._finish())

    @property
    def ended(self) -> bool:
        return self._end.done()

    @property
    @abstractmethod
    def limits_held(self) -> dict[str, str]:
        """Limit name to mechanism."""

    def describe(self) -> str:
        command = " ".join(self._spec.argv)[:120]
        return f"run {self.run_id} in {self.driver}, process {self.pid}: {command}"

    def hold_clock(self) -> None:
        self._life.hold(True)

    def release_clock(self) -> None:
        self._life.hold(False)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    async def stop(self, grace_ms: int = 2_000) -> Exit:
        if not self._end.done():
            self._life.cause = self._life.cause or "stopped"
            await self._terminate()
            await asyncio.wait([self._end], timeout=grace_ms / 1_000)
            await self._kill()
        return await self.wait()

    @abstractmethod
    async def _gone(self) -> int | None:
        """Wait until nothing of the sandbox runs; the command's exit code, None when it has none."""

    @abstractmethod
    async def _terminate(self) -> None:
        """SIGTERM to the command."""

    @abstractmethod
    async def _kill(self) -> None:
        """SIGKILL to all; nothing when it is over."""

    @abstractmethod
    def _sample(self) -> tuple[int, bool]:
        """See `lifetime.Sample`."""

    @abstractmethod
    async def _clear(self) -> None:
        """Give back what the machine lent."""

    @abstractmethod
    def _last_words(self) -> str:
        """Why a sandbox died that nobody ended."""

    async def _finish(self) -> Exit:
        try:
            code = await self._gone()
            wall_ms, over_memory = self._life.wall_ms, self._life.measure()
        finally:
            await self._life.end()
            await self._output.close()
            await self._clear()
        kind, detail = self._verdict(code, over_memory)
        return Exit(
            kind=kind,
            code=code if kind == "exited" else None,
            wall_ms=wall_ms,
            peak_memory_bytes=self._life.peak_bytes,
            output_tail=self._output.tail,
            output_truncated=self._output.truncated,
            detail=detail,
        )

    def _verdict(self, code: int | None, over_memory: bool) -> tuple[ExitKind, str]:
        cause = self._life.cause
        if cause != "stopped" and code is not None:
            cause = None  # it ended by itself, a moment before the limit
        if over_memory and code != 0:
            cause = "memory"
        limits = self._spec.limits
        if cause == "memory":
            return cause, f"more than {limits.memory_bytes} bytes of memory were wanted"
        if cause == "timeout":
            return cause, f"still running after {limits.wall_ms} ms"
        if cause == "stopped":
            return cause, ""
        return ("lost", self._last_words()) if code is None else ("exited", "")


SandboxT = TypeVar("SandboxT", bound=Running)


class Registry(Generic[SandboxT]):
    """The sandboxes of one driver: a run is in one of them at a time."""

    def __init__(self) -> None:
        self._of_run: dict[str, SandboxT | None] = {}

    @contextmanager
    def starting(self, run_id: str) -> Iterator[None]:
        """Claim `run_id` for the length of a start; what did not end up in `add` is given up."""
        if run_id in self.live():
            raise SandboxError(f"run {run_id} is already in a sandbox", code="QD-SBX-125")
        self._of_run[run_id] = None
        try:
            yield
        finally:
            if self._of_run[run_id] is None:
                del self._of_run[run_id]

    def add(self, sandbox: SandboxT) -> SandboxT:
        self._of_run[sandbox.run_id] = sandbox
        return sandbox

    def live(self) -> set[str]:
        """The runs that are being started or have not ended."""
        ended = [run_id for run_id, sandbox in self._of_run.items() if sandbox is not None and sandbox.ended]
        for run_id in ended:
            del self._of_run[run_id]
        return set(self._of_run)

    async def stop_all(self) -> None:
        sandboxes = [sandbox for sandbox in self._of_run.values() if sandbox is not None]
        await asyncio.gather(*(sandbox.stop(grace_ms=0) for sandbox in sandboxes))
