"""What the agent does by itself: look at its inputs, run Python, read files. Standard library only.

The sandbox is the boundary, not this module: whatever the process may see, these tools may see. Their answers
depend on nothing but the files and the code (no clock, no random names), so a repeated attempt asks the model
the very same questions.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_LIMIT_S = 60
OUTPUT_LIMIT_CHARS = 20_000
READ_LIMIT_CHARS = 60_000
SNIFF_BYTES = 65_536
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

SCHEMAS: list[dict[str, Any]] = [
    {
        "name": "run_python",
        "description": (
            "Run a Python program in the working folder and get what it printed. Only the standard library "
            f"is there. It ends after {RUN_LIMIT_S} seconds. With save_as the program is kept under that "
            "name, so that later programs can import it."
        ),
        "parameters": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "The whole program."},
                "save_as": {"type": "string", "description": "A file name such as table.py."},
            },
            "required": ["code"],
            "additionalProperties": False,
        },
    },
    {
        "name": "read_file",
        "description": "Read a text file; a relative path starts in the working folder.",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}},
            "required": ["path"],
            "additionalProperties": False,
        },
    },
]


@dataclass(frozen=True)
class ToolResult:
    """What the model reads, and whether the tool did what was asked."""

    text: str
    ok: bool = True


def list_inputs(folder: Path) -> list[Path]:
    """The files of the folder by name; empty when there is no folder."""
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def why_unusable(path: Path) -> str | None:
    """Why a file is no text table: empty, or binary. None when it can be worked with."""
    with path.open("rb") as file:
        start = file.read(SNIFF_BYTES)
    if not start.strip():
        return "is empty"
    text_like = start.startswith(UTF16_MARKS) or b"\x00" not in start
    control = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in start)
    if not text_like or (not start.startswith(UTF16_MARKS) and control > len(start) // 100):
        return "is binary, not a text table"
    return None


class LocalTools:
    """The tools by name, over one working folder. Raises nothing: a failure is an answer to the model."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._programs = 0

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        text = {key: value for key, value in arguments.items() if isinstance(value, str)}
        if name == "run_python" and "code" in text:
            return await self._run_python(text["code"], text.get("save_as"))
        if name == "read_file" and "path" in text:
            return self._read_file(text["path"])
        return ToolResult(f"error: {name} needs other arguments than {sorted(arguments)}", ok=False)

    async def _run_python(self, code: str, save_as: str | None) -> ToolResult:
        self._programs += 1
        name = save_as or f"step_{self._programs}.py"
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}\.py", name):
            return ToolResult("error: save_as must be a plain file name such as table.py", ok=False)
        try:
            (self._work / name).write_text(code, encoding="utf-8")
            process = await self._start(name)
        except (OSError, UnicodeEncodeError) as error:
            return ToolResult(f"error: the program could not be started: {error}", ok=False)
        try:
            async with asyncio.timeout(RUN_LIMIT_S):
                output = await _capped(process)
                left = await process.wait()
        except TimeoutError:
            return ToolResult(f"error: the program was still running after {RUN_LIMIT_S} seconds", ok=False)
        finally:
            _end_group(process.pid)
            await process.wait()
        if left:
            return ToolResult(f"{output}\n[exit code {left}]".lstrip(), ok=False)
        return ToolResult(output or "[no output]")

    async def _start(self, name: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            name,
            cwd=self._work,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            # A module saved twice within a second would otherwise be imported from its first bytecode.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def _read_file(self, path: str) -> ToolResult:
        target = self._work / path
        try:
            if not target.is_file():
                return ToolResult(f"error: there is no file {path}", ok=False)
            with target.open(encoding="utf-8") as file:
                text = file.read(READ_LIMIT_CHARS)
                more = bool(file.read(1))
        except UnicodeDecodeError:
            return ToolResult(f"error: {path} is not UTF-8 text", ok=False)
        except (OSError, ValueError) as error:
            return ToolResult(f"error: {path} could not be read: {error}", ok=False)
        return ToolResult(f"{text}\n[cut after {READ_LIMIT_CHARS:,} characters]" if more else text)


async def _capped(process: asyncio.subprocess.Process) -> str:
    """What a program prints, up to the limit. The rest is read and dropped, or the program would block."""
    assert process.stdout is not None
    kept, dropped = bytearray(), False
    while chunk := await process.stdout.read(65_536):
        room = OUTPUT_LIMIT_CHARS * 4 - len(kept)
        kept += chunk[: max(0, room)]
        dropped = dropped or len(chunk) > room
    text = kept.decode("utf-8", "replace")
    dropped = dropped or len(text) > OUTPUT_LIMIT_CHARS
    return text[:OUTPUT_LIMIT_CHARS].strip() + ("\n[more output was cut]" if dropped else "")


def _end_group(pid: int) -> None:
    """End whatever the program left running; its session is a process group of its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
