"""Smaller parts of the drivers: output, memory, cgroups, identity, the choice, a missing daemon."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from services.sandbox.adapters import cgroups, identity, memory
from services.sandbox.adapters.bubblewrap import explain
from services.sandbox.adapters.choose import choose
from services.sandbox.adapters.docker import Docker
from services.sandbox.adapters.launching import LaunchFailed
from services.sandbox.adapters.output import Output
from services.sandbox.ports import TAIL_BYTES, SandboxSpec, SandboxUnavailable, Stream


class Follower:
    """Collects lines; slow or broken on request."""

    def __init__(self, *, waits_for: asyncio.Event | None = None, breaks: bool = False) -> None:
        self.lines: list[tuple[Stream, str]] = []
        self._waits_for, self._breaks = waits_for, breaks

    async def __call__(self, stream: Stream, line: str) -> None:
        if self._waits_for is not None:
            await self._waits_for.wait()
        self.lines.append((stream, line))
        if self._breaks:
            raise ValueError("broken")


async def test_lines_are_put_together_from_pieces() -> None:
    """A line arrives whole however it was cut, per stream, undecodable bytes replaced."""
    follower = Follower()
    output = Output(1_000, follower)
    for stream, chunk in (("stdout", b"he"), ("stderr", b"\xff\n"), ("stdout", b"llo\n\nend")):
        output.feed(stream, chunk)  # type: ignore[arg-type]
    await output.close()
    assert follower.lines == [("stderr", "\ufffd"), ("stdout", "hello"), ("stdout", ""), ("stdout", "end")]
    assert not output.truncated


async def test_a_long_line_comes_in_pieces() -> None:
    """A line without end is handed out in pieces of 8 KiB."""
    follower = Follower()
    output = Output(100_000, follower)
    for _ in range(5):
        output.feed("stdout", b"x" * 4_000)
    await output.close()
    assert [len(line) for _, line in follower.lines] == [8_192, 8_192, 3_616]


async def test_past_the_limit_only_the_tail_is_kept() -> None:
    """A follower gets no more than the limit; the tail is the very last of all."""
    follower = Follower()
    output = Output(10, follower)
    output.feed("stdout", b"0123456789abc\n")
    output.feed("stderr", b"z" * TAIL_BYTES)
    output.feed("stdout", b"last\n")
    await output.close()
    assert follower.lines == [("stdout", "0123456789")]
    assert output.truncated and len(output.tail) == TAIL_BYTES and output.tail.endswith(b"zlast\n")


async def test_a_broken_follower_is_dropped() -> None:
    """A follower that raises hears no more, and the output goes on."""
    follower = Follower(breaks=True)
    output = Output(1_000, follower)
    output.feed("stdout", b"one\ntwo\n")
    await output.close()
    assert follower.lines == [("stdout", "one")] and output.truncated and output.tail == b"one\ntwo\n"


async def test_a_slow_follower_misses_lines() -> None:
    """Lines that a follower does not take in time are dropped and flagged, and nobody waits for it."""
    go_on = asyncio.Event()
    follower = Follower(waits_for=go_on)
    output = Output(100_000, follower)
    output.feed("stdout", b"x\n" * 2_000)
    go_on.set()
    await output.close()
    assert output.truncated and 0 < len(follower.lines) < 2_000


def test_resident_memory_is_seen() -> None:
    """A process that holds 40 MiB more is seen to hold about that."""
    before = memory.resident_bytes(os.getpid())
    held = bytearray(40 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert memory.resident_bytes(os.getpid()) - before > 30 << 20


def test_a_process_that_is_gone_has_no_memory_and_no_children() -> None:
    """Pids that end between two looks are no error."""
    assert memory.resident_bytes(2**22 + 1) == 0 and memory.children(2**22 + 1) == []


def test_both_versions_of_cgroups_are_read(tmp_path: Path) -> None:
    """Peak and out-of-memory kills come from the files of either version; a missing folder says nothing."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one/memory.max_usage_in_bytes").write_text("1234\n")
    (tmp_path / "one/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/memory.peak").write_text("5678\n")
    (tmp_path / "two/memory.events").write_text("low 0\nhigh 0\nmax 9\noom 0\noom_kill 0\n")
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "gone"]
    assert [cgroups.peak_bytes(folder) for folder in folders] == [1234, 5678, 0]
    assert [cgroups.was_out_of_memory(folder) for folder in folders] == [True, False, False]


def test_a_sandbox_is_never_root() -> None:
    """Whoever runs the service, the ids of a sandbox are not zero; root gives each sandbox others."""
    uid, gid = identity.agent_ids()
    assert uid != 0 and gid != 0
    if os.geteuid() == 0:
        assert len({identity.agent_ids() for _ in range(20)}) > 1
        assert identity.agent_ids(fixed=True) == identity.agent_ids(fixed=True)
    else:
        assert (uid, gid) == (os.getuid(), os.getgid())


async def test_a_missing_daemon_is_named_with_its_remedy(tmp_path: Path) -> None:
    """Without a Docker daemon the probe and a start say where none answered and how to get one."""
    driver = Docker(socket_path=str(tmp_path / "none.sock"))
    (finding,) = await driver.probe()
    assert (finding.ok, finding.code) == (False, "QD-SBX-105") and "docker.io" in finding.fix
    with pytest.raises(SandboxUnavailable, match="QD-SBX-105"):
        await driver.start(SandboxSpec(run_id="r", argv=("env",), env={}, work_dir=str(tmp_path)))
    with pytest.raises(SandboxUnavailable, match="QD-SBX-105"):
        await driver.sweep(())
    await driver.close()


def test_a_failed_step_of_the_launcher_is_explained() -> None:
    """Steps that need user namespaces say that these are forbidden and what to do; others name themselves."""
    for step in ("namespaces", "map", "loopback"):
        problem = explain(LaunchFailed(step, errno.EPERM, "Operation not permitted"))
        assert problem.code == "QD-SBX-102" and "user namespace" in problem.message and problem.hint
    full = explain(LaunchFailed("namespaces", errno.ENOSPC, "No space left on device"))
    assert "max_user_namespaces" in full.hint
    other = explain(LaunchFailed("cgroup", errno.EACCES, "Permission denied"))
    assert other.code == "QD-SBX-104" and "cgroup" in other.message


async def test_an_unknown_driver_is_refused_with_what_there_is() -> None:
    """A preference that names no driver is refused."""
    with pytest.raises(SandboxUnavailable, match=r"QD-SBX-101.*bubblewrap, docker"):
        await choose("podman")
