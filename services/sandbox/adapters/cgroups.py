"""Cgroups (v1 and v2) for one sandbox each, where this process may make them. No cgroup is not an error."""

import asyncio
import contextlib
import os
import signal
from functools import cache
from pathlib import Path

from services.sandbox.ports import Limits

PREFIX = "quarterdeck-"
EXTRA_PROCESSES = 3
"""bwrap's monitor and init, and the moment in which an exec'ing command counts twice."""
REMOVE_TRIES = 40


class Cgroup:
    """One sandbox's memory and process limits.

    `joins`: the files into which the sandbox's first process writes `0` to become a member.
    """

    def __init__(self, memory: Path, processes: Path, version: int) -> None:
        self._memory, self._folders = memory, tuple(dict.fromkeys((memory, processes)))
        self.version = version
        self.joins = tuple(str(folder / "cgroup.procs") for folder in self._folders)

    @property
    def held_by(self) -> str:
        return f"cgroup v{self.version}"

    def peak_bytes(self) -> int:
        """The most memory that was ever charged at once, page cache included; 0 when unknown."""
        return peak_bytes(self._memory)

    def was_out_of_memory(self) -> bool:
        return was_out_of_memory(self._memory)

    async def remove(self) -> None:
        """Take the cgroup away. Its last member is dead, but the kernel may need a few ms to let go."""
        for folder in self._folders:
            for _ in range(REMOVE_TRIES):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    await asyncio.sleep(0.005)
                else:
                    break


def create(name: str, limits: Limits) -> Cgroup | None:
    """A fresh cgroup `name` with its limits set, or None where the machine allows this process none.

    Whether it does is found by doing it: writable files alone don't say it.
    """
    found = _parents()
    if found is None:
        return None
    version, memory_parent, processes_parent = found
    group = Cgroup(memory_parent / (PREFIX + name), processes_parent / (PREFIX + name), version)
    memory, *others = group._folders
    processes = others[0] if others else memory
    try:
        for folder in group._folders:
            folder.mkdir(exist_ok=True)
        if version == 2:
            _write(memory / "memory.max", limits.memory_bytes)
            _write(memory / "memory.oom.group", 1)
            _write_if_there(memory / "memory.swap.max", 0)
        else:
            _write(memory / "memory.limit_in_bytes", limits.memory_bytes)
            _write_if_there(memory / "memory.memsw.limit_in_bytes", limits.memory_bytes)
        _write(processes / "pids.max", limits.processes + EXTRA_PROCESSES)
    except OSError:
        for folder in group._folders:
            if folder.is_dir():
                folder.rmdir()
        return None
    return group


def leftovers(prefix: str) -> list[str]:
    """What follows `prefix` in the names of cgroups that an earlier process of the same owner left."""
    found = _parents()
    if found is None:
        return []
    start = PREFIX + prefix
    names = {entry.name for parent in found[1:] for entry in parent.iterdir() if entry.name.startswith(start)}
    return sorted(name.removeprefix(start) for name in names)


async def remove_leftover(name: str) -> None:
    """End what is in the cgroup `name` and take it away."""
    found = _parents()
    assert found is not None, "it was just listed"
    version, memory_parent, processes_parent = found
    group = Cgroup(memory_parent / (PREFIX + name), processes_parent / (PREFIX + name), version)
    for path in group.joins:
        for pid in _read(Path(path)).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    await group.remove()


def peak_bytes(folder: Path) -> int:
    """`folder` is a memory cgroup of either version; 0 when it says nothing (before Linux 5.19, or gone)."""
    text = _read(folder / "memory.peak") or _read(folder / "memory.max_usage_in_bytes")
    return int(text or "0")


def was_out_of_memory(folder: Path) -> bool:
    """The kernel killed a process of this memory cgroup because of its limit."""
    text = _read(folder / "memory.events") or _read(folder / "memory.oom_control")
    counts = dict(line.split(maxsplit=1) for line in text.splitlines())
    return int(counts.get("oom_kill", "0")) > 0


def memory_folder(pid: int) -> Path | None:
    """Where the memory cgroup of a process lies on this host, or None."""
    for hierarchy, controllers, path in _memberships(pid):
        if "memory" in controllers.split(",") or (hierarchy == "0" and not controllers):
            mounted = _mounts().get("memory" if controllers else "")
            if mounted is not None and (mounted / path.lstrip("/") / "cgroup.procs").exists():
                return mounted / path.lstrip("/")
    return None


def _parents() -> tuple[int, Path, Path] | None:
    """(version, folder for memory, folder for processes) below which a sandbox's cgroup may be made."""
    mounts = _mounts()
    own = {controllers: path for _, controllers, path in _memberships(os.getpid())}
    first = {
        name: mounts[name] / path.lstrip("/")
        for names, path in own.items()
        for name in names.split(",")
        if name in {"memory", "pids"} and name in mounts
    }
    if len(first) == 2:
        memory, processes = first["memory"], first["pids"]
        return (
            (1, memory, processes) if os.access(memory, os.W_OK) and os.access(processes, os.W_OK) else None
        )
    if "" in mounts and "" in own:
        own_folder = mounts[""] / own[""].lstrip("/")
        # A cgroup with processes can't also have children with controllers, so ours stand beside it.
        for parent in (own_folder.parent, own_folder):
            enabled = _read(parent / "cgroup.subtree_control").split()
            writable = os.access(parent, os.W_OK) and os.access(parent / "cgroup.procs", os.W_OK)
            if writable and {"memory", "pids"} <= set(enabled):
                return 2, parent, parent
    return None


def _memberships(pid: int) -> list[tuple[str, str, str]]:
    """(hierarchy, controllers, path) of each line of /proc/PID/cgroup."""
    lines = _read(Path(f"/proc/{pid}/cgroup")).splitlines()
    return [tuple(line.split(":", 2)) for line in lines if line.count(":") >= 2]  # type: ignore[misc]


@cache
def _mounts() -> dict[str, Path]:
    """Controller name to the mount point of its hierarchy; "" is the unified one. As first seen."""
    found: dict[str, Path] = {}
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        _, _, _, root, point, *_ = before.split(" ")
        if root != "/":
            continue  # part of a hierarchy: the paths in /proc/PID/cgroup don't match it
        if kind == "cgroup2":
            found.setdefault("", Path(point))
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, Path(point))
    return found


def _read(path: Path) -> str:
    """The file's text; empty when it is not there or not ours to read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, value: int) -> None:
    path.write_text(str(value))


def _write_if_there(path: Path, value: int) -> None:
    if path.exists():
        _write(path, value)
