"""What the sandbox service needs from the machine: a driver that starts sandboxes, and what it returns.

The rules every driver keeps:

- The only way out of a sandbox is `Sandbox.edge`. There is no other network, not even to the host.
- Nothing of the host is readable but its runtime (`/usr`, the loader's cache, the Python of this service
and its
  virtual environment), nothing is writable but `/work`, `/tmp` and `/dev/shm`, nothing runs as the host's
  root.
- "The command failed" (`Exit.kind == "exited"`, whatever the code) is told apart from "the sandbox died"
  (`"lost"`) and from what was done to it (`"timeout"`, `"memory"`, `"stopped"`).

    SandboxError
    ├── SandboxUnavailable   this machine or its daemon can't; also an `Unavailable`
    └── SpecRefused          what was asked can't be done anywhere; asking again won't help
        └── CommandNotFound
"""

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from quarterdeck.contracts.mission import Artifact
from quarterdeck.contracts.sandbox import ExitKind, StartSandbox
from quarterdeck.kernel.errors import QuarterdeckError, Unavailable

WORK_DIR = "/work"
EDGE_PORT = 4100
PYTHON = os.path.abspath(sys.executable)
"""The interpreter of this service, with its packages, as it is named inside every sandbox."""
SEARCH_PATH = f"{os.path.dirname(PYTHON)}:/usr/local/bin:/usr/bin:/bin"
"""A PATH for `SandboxSpec.env` under which `python` is that interpreter."""
TAIL_BYTES = 16 << 10
"""`Exit.output_tail` is never longer."""

Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, str], Awaitable[None]]
"""Called with each line (decoded, without its newline, at most 8 KiB, longer ones in pieces), in order."""


class SandboxError(QuarterdeckError):
    """Root of what a driver raises."""

    code = "QD-SBX-100"


class SandboxUnavailable(SandboxError, Unavailable):
    """No sandbox can be had here and now: `message` says what is in the way, `hint` how to get it.

    QD-SBX-101 no driver works, 102 user namespaces are forbidden, 103 bubblewrap is missing, 104 the sandbox
    could not be set up, 105 no Docker daemon answers, 106 the Docker daemon refused, 107 unsupported machine.
    """

    code = "QD-SBX-104"


class SpecRefused(SandboxError):
    """The `SandboxSpec` is wrong.

    QD-SBX-121 a bad value, 122 a source is missing or unreadable, 123 a target is taken, 124 no such command.
    """

    code = "QD-SBX-121"


class CommandNotFound(SpecRefused):
    """`argv[0]` names nothing executable inside the sandbox."""

    code = "QD-SBX-124"


class Mount(Struct, frozen=True, kw_only=True):
    """A host file or directory that appears inside.

    `source`: absolute host path that exists. When the service runs as root, what the agent must read has to
    be readable by others (`o+rX`): the agent never runs as root.
    `target`: absolute path inside; not `/`, `/work` or anything of the runtime (`/usr`, `/etc`, `/proc`,
    ...).
    `writable`: the agent may change the source. A root service hands the source over to the agent's uid.
    """

    source: str
    target: str
    writable: bool = False


class Limits(Struct, frozen=True, kw_only=True):
    """What one sandbox may use. Each is at least 1.

    `memory_bytes` (1 GiB): all processes together. Past it the sandbox ends as `memory`.
    `processes` (64): processes and threads together; past it fork fails inside with EAGAIN.
    `file_bytes` (64 MiB): size of any one file; past it a write fails with EFBIG or SIGXFSZ. `/tmp` holds a
    quarter, `/dev/shm` an eighth of `memory_bytes`; past that a write fails with ENOSPC.
    `wall_ms` (10 minutes): from start to end without the time in which the clock is held; past it `timeout`.
    `output_bytes` (1 MiB): stdout and stderr together. What is written past it is read slowly and dropped,
    so the agent is slowed down, never blocked for good.
    """

    memory_bytes: int = 1 << 30
    processes: int = 64
    file_bytes: int = 64 << 20
    wall_ms: int = 600_000
    output_bytes: int = 1 << 20


class SandboxSpec(Struct, frozen=True, kw_only=True):
    """One run.

    `run_id`: a token (letters, digits, `_`, `-`; at most 64).
    `argv`: the command; `argv[0]` is looked up in `env["PATH"]` when it has no slash. At most 64 KiB
    together.
    `env`: the whole environment of the command; `PWD` is added. At most 64 KiB. Never put a secret here.
    `work_dir`: host directory that becomes `/work`, writable, and the working directory. A root service
    hands it over to the agent's uid. What is in it afterwards was written by the agent: links and pipes
    included.
    `mounts`: at most 32.
    `edge_port`: where the edge listens on 127.0.0.1 inside.
    """

    run_id: str
    argv: tuple[str, ...]
    env: dict[str, str]
    work_dir: str
    mounts: tuple[Mount, ...] = ()
    limits: Limits = Limits()
    edge_port: int = EDGE_PORT


class Exit(Struct, frozen=True, kw_only=True):
    """How a sandbox ended.

    `kind`: `exited` the command ended by itself; `timeout`, `memory` a limit; `stopped` by `Sandbox.stop`;
    `lost` the sandbox died under the command or never reached it, nothing is known of the command's success.
    `code`: 0 to 255 when `exited`, 128+n for a command that died of signal n; otherwise None.
    `wall_ms`: from the start, held time included. `peak_memory_bytes`: 0 when it ended before it was
    measured.
    `output_tail`: the last at most TAIL_BYTES of both streams. `output_truncated`: more than
    `Limits.output_bytes` was written, or a follower was too slow for some of it.
    `detail`: for a person, why it was lost or which limit it was; otherwise empty.
    """

    kind: ExitKind
    code: int | None
    wall_ms: int
    peak_memory_bytes: int
    output_tail: bytes
    output_truncated: bool
    detail: str = ""


class Finding(Struct, frozen=True, kw_only=True):
    """One line of `doctor`. A driver works on this machine when all its findings are `ok`.

    `check`: a stable name. `what`: what was found. `fix`: what to do, empty when `ok`.
    `code`: the error a start would give, empty when `ok`.
    """

    check: str
    ok: bool
    what: str
    fix: str = ""
    code: str = ""


class Sandbox(Protocol):
    """A started sandbox."""

    @property
    def run_id(self) -> str: ...

    @property
    def driver(self) -> str:
        """Name of the driver that started it."""
        ...

    @property
    def edge(self) -> socket.socket:
        """The listening stream socket (TCP or unix) of the only way out, to be accepted on from outside.

        Non-blocking. It belongs to the caller, who closes it: a driver that closed it would pull it from
        under the event loop that accepts on it.
        """
        ...

    @property
    def pid(self) -> int:
        """The outermost process of the sandbox as the host sees it."""
        ...

    @property
    def limits_held(self) -> dict[str, str]:
        """Limit name to the mechanism that holds it, in words."""
        ...

    def describe(self) -> str:
        """One line for a person."""
        ...

    async def wait(self) -> Exit:
        """The end, after which no process of the sandbox is left. May be awaited by many and often."""
        ...

    async def stop(self, grace_ms: int = 2_000) -> Exit:
        """SIGTERM to the command, after `grace_ms` SIGKILL to all. Idempotent; returns the same as `wait`."""
        ...

    def hold_clock(self) -> None:
        """Stop counting `Limits.wall_ms`, for as long as a person is asked. Idempotent."""
        ...

    def release_clock(self) -> None:
        """Count on. Idempotent."""
        ...


class Driver(Protocol):
    """A way to make sandboxes on this machine."""

    @property
    def name(self) -> str: ...

    async def probe(self) -> list[Finding]:
        """What this machine can do, found by starting a real sandbox. What it can't is not raised."""
        ...

    async def start(self, spec: SandboxSpec, on_output: OnOutput | None = None) -> Sandbox:
        """Start the command. Returns when the sandbox stands and its edge listens.

        Raises SandboxUnavailable, SpecRefused, CommandNotFound. Nothing is left behind when it raises. A
        follower `on_output` that raises is logged and dropped; one that is slow misses lines.
        """
        ...

    async def sweep(self, run_ids_alive: Collection[str]) -> list[str]:
        """End what an earlier process of the same owner left behind, other than `run_ids_alive`.

        Returns the run ids that were found and ended, sorted.
        """
        ...

    async def close(self) -> None:
        """End what still runs and let go of the machine. The driver is not usable afterwards."""
        ...


@dataclass(frozen=True)
class RunFiles:
    """Where a run's files are on this host. Made by `Folders.prepare`."""

    root: Path

    @property
    def program(self) -> Path:
        return self.root / "program"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def work(self) -> Path:
        return self.root / "work"


class Folders(Protocol):
    """Brings a run's files in and carries its outputs out."""

    async def prepare(self, start: StartSandbox) -> RunFiles:
        """Program and inputs in a folder of their own. Raises SetupProblem (QD-ART-…) and Unavailable."""
        ...

    async def collect(self, files: RunFiles) -> tuple[Artifact, ...]:
        """What the agent left in /work/outputs, stored, by name. Raises Unavailable."""
        ...

    async def remove(self, files: RunFiles) -> None:
        """The run is over and its outputs are carried out. What can't be removed stays; it harms nobody."""
        ...
