"""A sandbox that the bubblewrap driver started, and the descriptors that join it to this process."""

import asyncio
import contextlib
import json
import os
import signal
from types import TracebackType
from typing import Self

from services.sandbox.adapters import memory
from services.sandbox.adapters.cgroups import Cgroup
from services.sandbox.adapters.launcher import FIRST_FD
from services.sandbox.adapters.launching import Launched, readable
from services.sandbox.adapters.running import Running
from services.sandbox.ports import OnOutput, SandboxSpec

DRAIN_S = 5
STATUS_BYTES = 4_096


class Pipes:
    """The descriptors of one start.

    `inner` go to the launcher and are closed on leaving. The reading ends are this side's; they are closed on
    leaving too unless somebody took them.
    """

    def __init__(self, files: tuple[tuple[str, bytes], ...], filter_program: bytes) -> None:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._out, out = os.pipe2(os.O_CLOEXEC)
        self._err, err = os.pipe2(os.O_CLOEXEC)
        self._status, status = os.pipe2(os.O_CLOEXEC)
        self._arguments = os.memfd_create("arguments")
        contents = [filter_program, *(content for _, content in files)]
        self.inner = [null, out, err, self._arguments, status, *(_in_memory(content) for content in contents)]
        self.status_number, self.seccomp_number = FIRST_FD + 1, FIRST_FD + 2
        self.file_numbers = range(FIRST_FD + 3, FIRST_FD + 3 + len(files))
        self._taken = False

    def give_arguments(self, arguments: list[str]) -> None:
        _fill(self._arguments, b"".join(argument.encode() + b"\0" for argument in arguments))

    def take(self) -> tuple[int, int, int]:
        """The reading ends of stdout, stderr and bwrap's status."""
        self._taken = True
        return self._out, self._err, self._status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        rest = () if self._taken else (self._out, self._err, self._status)
        for fd in (*self.inner, *rest):
            os.close(fd)


class BubbledSandbox(Running):
    """`launched` and the reading ends of `pipes` become this object's."""

    driver = "bubblewrap"

    def __init__(
        self,
        spec: SandboxSpec,
        launched: Launched,
        pipes: Pipes,
        group: Cgroup | None,
        on_output: OnOutput | None,
    ) -> None:
        super().__init__(spec, launched.edge, launched.pid, on_output)
        self._pidfd, self._group = launched.pidfd, group
        out, err, self._status = pipes.take()
        self._readers = [
            asyncio.create_task(self._output.read("stdout", out)),
            asyncio.create_task(self._output.read("stderr", err)),
        ]
        self._begin()

    @property
    def limits_held(self) -> dict[str, str]:
        limits = self._spec.limits
        if self._group is not None:
            memory_by = self._group.held_by
            processes_by = f"{memory_by} and rlimit"
        else:
            memory_by = f"watch of resident memory, rlimit of {limits.memory_bytes * 4} bytes a process"
            processes_by = "rlimit"
        return {
            "memory_bytes": memory_by,
            "processes": processes_by,
            "file_bytes": "rlimit, sized tmpfs",
            "wall_ms": "watch",
            "output_bytes": "bounded pipe",
        }

    async def _gone(self) -> int | None:
        """The pidfd is that of a pid namespace's init: it is readable when all of the namespace is reaped."""
        await readable(self._pidfd)
        # Nobody is left to write, so the pipes end; the bound is for a kernel that disagrees.
        _, late = await asyncio.wait(self._readers, timeout=DRAIN_S)
        assert not late, "a pipe of a dead sandbox is still open"
        return _exit_code(self._status)

    async def _terminate(self) -> None:
        """To the children of the sandbox's own init, which itself ignores it."""
        for init in memory.children(self.pid):
            for pid in memory.children(init):
                with contextlib.suppress(ProcessLookupError):
                    fd = os.pidfd_open(pid)
                    # A pid may have been given to somebody else since it was listed; a pidfd can't be.
                    if pid in memory.children(init):
                        signal.pidfd_send_signal(fd, signal.SIGTERM)
                    os.close(fd)

    async def _kill(self) -> None:
        """To the outermost process alone: the kernel ends the namespace with its init."""
        if not self._end.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _sample(self) -> tuple[int, bool]:
        if self._group is not None:
            return self._group.peak_bytes(), self._group.was_out_of_memory()
        used = memory.resident_bytes(self.pid)
        return used, used > self._spec.limits.memory_bytes

    async def _clear(self) -> None:
        os.close(self._pidfd)
        if self._group is not None:
            await self._group.remove()

    def _last_words(self) -> str:
        """bwrap says on stderr what it could not do, if it was bwrap that gave up."""
        lines = self._output.tail.decode("utf-8", "replace").splitlines()
        words = [line for line in lines if line.startswith("bwrap: ")]
        return words[-1][:400] if words else "the sandbox was killed from outside"


def _exit_code(fd: int) -> int | None:
    """The command's exit code from bwrap's status, which has one only if the command was reached."""
    code = None
    with os.fdopen(fd, "rb") as status:
        for line in status.read(STATUS_BYTES).splitlines():
            code = json.loads(line).get("exit-code", code)
    return code


def _in_memory(content: bytes) -> int:
    fd = os.memfd_create("content")
    _fill(fd, content)
    return fd


def _fill(fd: int, content: bytes) -> None:
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
