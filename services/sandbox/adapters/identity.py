"""Which uid a sandbox runs as on the host."""

import os
import secrets
from pathlib import Path

from services.sandbox.ports import SandboxUnavailable

FIRST_ID = 1_900_000_000
"""Above what useradd and subordinate ranges hand out, below 2^31."""
IDS = 65_536
NOBODY = 65_534


def agent_ids(*, fixed: bool = False) -> tuple[int, int]:
    """(uid, gid): our own, or for root an unprivileged pair, by default a new one for each sandbox.

    Raises SandboxUnavailable (QD-SBX-104) in a user namespace that maps nothing but root.
    """
    if os.geteuid() != 0:
        return os.getuid(), os.getgid()
    wanted = FIRST_ID if fixed else FIRST_ID + secrets.randbelow(IDS)
    for number in (wanted, NOBODY):
        if _mapped("uid_map", number) and _mapped("gid_map", number):
            return number, number
    raise SandboxUnavailable(
        "root of this user namespace has no other uid to give to a sandbox",
        hint="run as an ordinary user, or map at least 65535 ids into the namespace",
    )


def _mapped(name: str, number: int) -> bool:
    lines = Path(f"/proc/self/{name}").read_text().splitlines()
    ranges = [[int(field) for field in line.split()] for line in lines]
    return any(first <= number < first + count for first, _, count in ranges)
