"""The service's end of `launcher`: keeps the launcher process, sends it orders, receives sandboxes."""

import array
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from services.sandbox.ports import SandboxUnavailable

LAUNCH_TIMEOUT_S = 20
REPLY_BYTES = 4_096
LAUNCHER = Path(__file__).with_name("launcher.py")


class Launched(Struct, frozen=True, kw_only=True):
    """A running sandbox. `pidfd` is readable when all of it is gone. Both descriptors are the caller's."""

    pid: int
    pidfd: int
    edge: socket.socket


class LaunchFailed(Exception):
    """A step of the launcher failed; `errno` and `text` as the kernel said."""

    def __init__(self, step: str, errno: int, text: str) -> None:
        super().__init__(f"{step}: {text}")
        self.step, self.errno, self.text = step, errno, text


class Launcher:
    """One launcher process, started when first needed and again when it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def launch(self, order: dict[str, Any], fds: list[int]) -> Launched:
        """Start a sandbox. `fds` stay the caller's. Raises LaunchFailed, SandboxUnavailable."""
        control = self._running()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ours:
            with theirs:
                await _send(control, json.dumps(order).encode(), [theirs.fileno(), *fds])
            return await _receive(ours)

    def close(self) -> None:
        """End the launcher; every sandbox that still runs goes with it."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is None and self._control is not None:
            return self._control
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # An empty environment: whatever the service was given stays with the service. The launcher dies
            # with the thread that runs this line, so the event loop's thread has to be one that lasts.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [sys.executable, "-I", "-S", str(LAUNCHER), str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the service, which then stops its sandboxes
            )
        ours.setblocking(False)
        self._control = ours
        return ours


async def readable(fd: int) -> None:
    """Wait until `fd` is readable or at its end; for a pidfd: until the process is gone."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def look() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, look)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def _send(control: socket.socket, message: bytes, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LAUNCH_TIMEOUT_S
    while loop.time() < deadline:
        try:
            control.sendmsg([message], rights)
        except BlockingIOError:  # many starts at once: the launcher takes them one after the other
            await asyncio.sleep(0.002)
        except OSError as error:
            raise SandboxUnavailable(f"the sandbox launcher does not take orders: {error}") from None
        else:
            return
    raise SandboxUnavailable(f"the sandbox launcher took no order for {LAUNCH_TIMEOUT_S} s")


async def _receive(replies: socket.socket) -> Launched:
    """Collect the replies of one order until bwrap has taken over. Nothing runs on when it raises."""
    got = _Replies()
    try:
        async with asyncio.timeout(LAUNCH_TIMEOUT_S):
            while True:
                await readable(replies.fileno())
                message, fds, _, _ = socket.recv_fds(replies, REPLY_BYTES, 4)
                if not message:
                    break
                got.take(json.loads(message), fds)
                if got.complete:
                    with contextlib.suppress(BrokenPipeError):  # it failed since, and said or says so
                        replies.send(b"1")
        return got.launched()
    except TimeoutError:
        got.abandon()
        raise SandboxUnavailable(f"the sandbox launcher was silent for {LAUNCH_TIMEOUT_S} s") from None
    except BaseException:
        got.abandon()
        raise


class _Replies:
    """What has come back for one order so far."""

    def __init__(self) -> None:
        self._pid = 0
        self._pidfd = -1
        self._edge: socket.socket | None = None

    def take(self, reply: dict[str, Any], fds: list[int]) -> None:
        if "step" in reply:
            raise LaunchFailed(reply["step"], reply["errno"], reply["text"])
        if "pid" in reply:
            self._pid, (self._pidfd,) = reply["pid"], fds
        else:
            (fd,) = fds
            self._edge = socket.socket(fileno=fd)
            self._edge.setblocking(False)

    @property
    def complete(self) -> bool:
        return self._edge is not None and self._pidfd >= 0

    def launched(self) -> Launched:
        if self._edge is None or self._pidfd < 0:
            raise SandboxUnavailable("the sandbox launcher died while it set up a sandbox")
        return Launched(pid=self._pid, pidfd=self._pidfd, edge=self._edge)

    def abandon(self) -> None:
        if self._edge is not None:
            self._edge.close()
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
