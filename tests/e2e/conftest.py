"""Whole runs, each in its own data directory, by the command that a person uses."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUARTERDECK = str(Path(sys.executable).parent / "quarterdeck")


@dataclass
class Finished:
    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, object]:
        """The JSON document on standard output."""
        parsed: dict[str, object] = json.loads(self.out)
        return parsed


class CommandLine:
    """`quarterdeck` on one data directory, from the project's folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.started: list[asyncio.subprocess.Process] = []

    async def start(
        self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL, stderr: int = asyncio.subprocess.PIPE
    ) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            QUARTERDECK,
            "--data-dir",
            str(self.data_dir),
            *arguments,
            cwd=ROOT,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
        self.started.append(process)
        return process

    async def __call__(self, *arguments: str, within_s: float = 60) -> Finished:
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(), within_s)
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    async def end(self) -> None:
        for process in self.started:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.communicate()


@pytest.fixture
async def quarterdeck(tmp_path: Path) -> AsyncIterator[CommandLine]:
    line = CommandLine(tmp_path / "qd")
    try:
        yield line
    finally:
        await line.end()
