"""Files on their way into the object store: checked before anything is sent."""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from quarterdeck.bus.artifacts import MAX_BYTES
from quarterdeck.client.client import Client
from quarterdeck.contracts.mission import Artifact, FileName
from quarterdeck.kernel.errors import SetupProblem

MAX_INPUTS = 64
TEXT_PROBE_BYTES = 64 << 10
"""A file is called binary by its beginning; reading more would not change the answer for real files."""
_NAME = re.compile(get_args(FileName)[1].pattern)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_input(path: Path, *, binary: bool = False) -> bytes:
    """The content of a mission's input file: 1 byte to 64 MiB, text unless `binary`.

    Raises SetupProblem: QD-CLI-010 missing, -011 not a file, -012 empty, -013 binary, -014 too big, -015
    unreadable, -016 a name that can't stand in a sandbox.
    """
    content = _read(path)
    if not content:
        raise SetupProblem(
            f"{path} is empty",
            code="QD-CLI-012",
            hint="a mission needs something to work on: name a file with content",
        )
    if not _NAME.fullmatch(path.name):
        raise SetupProblem(
            f"{path.name!r} can't be the name of an input",
            code="QD-CLI-016",
            hint="copy it to a name of letters, digits, spaces, dots, dashes; a letter first; 120 at most",
        )
    if not binary and b"\0" in (start := content[:TEXT_PROBE_BYTES]):
        kind = "UTF-16 text" if start.startswith(_UTF16) else "binary"
        raise SetupProblem(
            f"{path} is {kind}, not text that an agent can read as it is",
            code="QD-CLI-013",
            hint="save it as UTF-8 (CSV, JSON, Markdown), or say --binary if the agent expects these bytes",
        )
    return content


async def upload_inputs(client: Client, inputs: Sequence[tuple[Path, bytes]]) -> tuple[Artifact, ...]:
    """Store what `read_input` returned; the mission's inputs. Raises as Artifacts.put does."""
    return tuple(
        [
            Artifact(name=path.name, sha256=await client.artifacts.put(content), size_bytes=len(content))
            for path, content in inputs
        ]
    )


def read_inputs(paths: Sequence[Path], *, binary: bool = False) -> list[tuple[Path, bytes]]:
    """All of them or none. Raises as `read_input`, and QD-CLI-017 for two of one name or more than 64."""
    names = [path.name for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(paths) > MAX_INPUTS:
        raise SetupProblem(
            f"two inputs are named {twice[0]!r}"
            if twice
            else f"{len(paths)} inputs are more than {MAX_INPUTS}",
            code="QD-CLI-017",
            hint="they would lie in one folder, /inputs: give each a name of its own"
            if twice
            else "pack them into one file",
        )
    return [(path, read_input(path, binary=binary)) for path in paths]


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise SetupProblem(
                f"{path} is a directory",
                code="QD-CLI-011",
                hint="name a file in it; --input may stand more than once",
            )
        if not path.exists():
            raise SetupProblem(
                f"{path} is not there", code="QD-CLI-010", hint=f"paths are looked up from {Path.cwd()}"
            )
        if not path.is_file():
            raise SetupProblem(
                f"{path} is not a regular file", code="QD-CLI-011", hint="copy what it gives into a file"
            )
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SetupProblem(
                f"{path} has {path.stat().st_size:,} bytes; an input has {MAX_BYTES:,} at most",
                code="QD-CLI-014",
                hint="cut it into parts, or give the agent a sample",
            )
        return content
    except OSError as error:
        raise SetupProblem(
            f"{path} can't be read: {error.strerror or error}",
            code="QD-CLI-015",
            hint="is it readable for you?",
        ) from None
