"""Bubblewrap where pids are few: inside a container, whose pid namespace is not the machine's."""

import os
import shutil
import subprocess
import sys

import pytest

TRY = """
import asyncio, os
from services.sandbox.adapters.bubblewrap import Bubblewrap

async def main():
    driver = Bubblewrap()
    for finding in await driver.probe():
        print(finding.ok, finding.what, finding.code)
    await driver.close()

assert not os.path.exists("/proc/2"), "the pid that a sandbox sees must belong to nobody out here"
asyncio.run(main())
"""


def test_a_sandbox_starts_where_its_pids_mean_nothing_outside() -> None:
    """In a pid namespace without a process 2, as in most containers, the trial of the driver runs."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs `unshare` (util-linux) to make a pid namespace")
    user = [] if os.geteuid() == 0 else ["--map-current-user"]
    inside = [unshare, *user, "--pid", "--fork", "--mount-proc"]
    able = subprocess.run([*inside, "true"], check=False, capture_output=True, text=True, timeout=10)
    if able.returncode:
        pytest.skip(f"this machine lets nobody make a pid namespace: {able.stderr.strip()}")
    # The shell is 1 and `env` was 2: it is gone when the interpreter takes the shell's place.
    command = [*inside, "sh", "-c", 'env >/dev/null; exec "$0" -c "$1"', sys.executable, TRY]
    tried = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert tried.returncode == 0, tried.stderr
    found = tried.stdout.splitlines()
    assert len(found) > 2
    assert all(line.startswith("True ") for line in found), tried.stdout
