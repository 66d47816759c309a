"""Memory of a process tree, for machines that give us no cgroup."""

import os
from pathlib import Path

MAX_PROCESSES = 4_096


def tree(pid: int) -> list[int]:
    """`pid` and all below it. Processes that end meanwhile are left out."""
    found: list[int] = []
    todo = [pid]
    while todo and len(found) < MAX_PROCESSES:
        at = todo.pop()
        found.append(at)
        todo += children(at)
    return found


def children(pid: int) -> list[int]:
    """The child processes of all threads of `pid`; none when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    except OSError:
        return found
    return found


def resident_bytes(pid: int) -> int:
    """What the tree below `pid` holds in memory: anonymous and shared pages, files it merely maps left out.

    Counting mapped files would charge every process of a crew for the same interpreter.
    """
    return sum(_own_bytes(member) for member in tree(pid))


def _own_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    fields = (line.split() for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return sum(int(field[1]) * 1_024 for field in fields)
