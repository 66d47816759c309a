"""Time from asking for a sandbox to the first output of its command, beside bare bwrap on the same machine.

    python benchmarks/sandbox_start.py [--runs 50] [--drivers bubblewrap,docker]

Prints one JSON object; times in ms. `bare_bwrap` starts the same command with the same namespaces and the
runtime bound read-only, without limits, filter, capture and edge; its runs alternate with bubblewrap's. A
driver that can't be used here is null, with the reason on stderr.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from services.sandbox.adapters import runtime
from services.sandbox.adapters.bubblewrap import bwrap_path
from services.sandbox.adapters.choose import drivers
from services.sandbox.ports import Driver, SandboxSpec, Stream

COMMAND = ("echo", "first")
WARM_UP = 3


def bare_bwrap_ms() -> float:
    argv = [
        str(bwrap_path()),
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
    ]
    argv += ["--clearenv", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--proc", "/proc"]
    argv += ["--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr"]
    for path, said in runtime.host_root().symlinks:
        if path.count("/") == 1:
            argv += ["--symlink", said, path]
    started = time.perf_counter()
    with subprocess.Popen([*argv, "--", *COMMAND], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.read(1) == b"f"
        return (time.perf_counter() - started) * 1_000


async def driver_ms(driver: Driver, folder: str, number: int) -> float:
    first: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def follow(_stream: Stream, _line: str) -> None:
        if not first.done():
            first.set_result(time.perf_counter())

    spec = SandboxSpec(run_id=f"bench-{number}", argv=COMMAND, env={}, work_dir=folder)
    started = time.perf_counter()
    sandbox = await driver.start(spec, follow)
    with sandbox.edge:
        elapsed_s = await first - started
        await sandbox.wait()
    return elapsed_s * 1_000


def figures(times_ms: list[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "least": round(ordered[0], 2),
    }


async def usable(driver: Driver) -> bool:
    problems = [f"{finding.what} ({finding.code})" for finding in await driver.probe() if not finding.ok]
    if problems:
        print(f"{driver.name}: {'; '.join(problems)}", file=sys.stderr)
    return not problems


async def main() -> None:
    parser = argparse.ArgumentParser(description="Time to the first output of a sandbox's command.")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--drivers", default="bubblewrap,docker")
    options = parser.parse_args()
    made = drivers()
    report: dict[str, object] = {
        "what": "ms to the first output of the command",
        "runs": options.runs,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "root": os.geteuid() == 0,
    }
    bare_ms: list[float] = []
    for name in options.drivers.split(","):
        driver, times_ms = made[name], []
        if await usable(driver):
            with tempfile.TemporaryDirectory() as folder:
                for number in range(options.runs + WARM_UP):
                    if name == "bubblewrap":
                        bare_ms.append(bare_bwrap_ms())
                    times_ms.append(await driver_ms(driver, folder, number))
        await driver.close()
        report[name] = figures(times_ms[WARM_UP:]) if times_ms else None
    if bare_ms:
        report["bare_bwrap"] = figures(bare_ms[WARM_UP:])
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
