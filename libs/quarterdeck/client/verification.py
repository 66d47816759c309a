"""Verifies the journal: reads the whole stream and every signed head again. Needs the bus, not the service.

async with Client.open(data_dir=data_dir) as client:
    reply = await verify(client.wire.connection, data_dir)
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from nats.aio.client import Client as Nats

from quarterdeck.bus.streams import KV_CHECKPOINTS
from quarterdeck.client.audit import Heads, audit
from quarterdeck.contracts.journal import VerifyReply
from quarterdeck.eventlog.stored import ends, pages
from quarterdeck.kernel.errors import ContractViolation, SetupProblem, Unavailable
from quarterdeck.kernel.notes import Verifier

LOG_FILE = "checkpoints.log"
LOG = f"journal/{LOG_FILE}"
PUBLIC_KEY = "keys/journal.vkey"
BUCKET_STREAM = f"KV_{KV_CHECKPOINTS}"
LATEST = "latest"
Recorded = Callable[[], Awaitable[Sequence[bytes]]]


def size_key(size: int) -> str:
    """The key of a head in the bucket."""
    return f"size.{size}"


async def verify(connection: Nats, data_dir: Path, recorded: Recorded | None = None) -> VerifyReply:
    """Hold the stream EVENTS against the heads of `data_dir` and of the bucket, and against the leaves that
    the read model `recorded`, if given. See `audit` for what is found, and for what can't be.

    Raises Unavailable, and SetupProblem (QD-JRN-008) when there is no verification key in `data_dir`.
    """
    verifier = await asyncio.to_thread(public_key, data_dir)
    # In this order nothing that is written meanwhile looks like a loss: what is read later only has more.
    before = await asyncio.to_thread(notes_of, data_dir / LOG)
    bucket = await bucket_notes(connection)
    file = await asyncio.to_thread(notes_of, data_dir / LOG)
    leaves_then = await recorded() if recorded is not None else None
    heads = Heads(file=tuple(file), file_before=tuple(before), bucket=tuple(bucket))
    return audit(await leaves_now(connection), leaves_then, heads, verifier)


async def leaves_now(connection: Nats) -> list[bytes | None]:
    """The leaf of every sequence from 1 to where the stream ends now; None where nothing is stored."""
    found = await ends(connection)
    leaves: list[bytes | None] = [None] * (found.last if found is not None else 0)
    if leaves:
        async for page in pages(connection, end=len(leaves)):
            for stored in page:
                leaves[stored.sequence - 1] = stored.leaf()
    return leaves


async def bucket_notes(connection: Nats) -> list[str]:
    """The notes in the bucket CHECKPOINTS, by size and the latest; none where there is no bucket."""
    if await ends(connection, BUCKET_STREAM) is None:
        return []
    notes: dict[str, None] = {}
    async for page in pages(connection, stream=BUCKET_STREAM):
        for stored in page:
            if "KV-Operation" not in stored.headers:
                notes[stored.body.decode(errors="replace")] = None
    return list(notes)


def notes_of(path: Path) -> list[str]:
    """The notes in a file of heads: one a line, as a JSON string. A line that is none stands for itself.

    What follows the last line break was being written when its writer was killed: nobody was told of it.
    Raises Unavailable when the file can't be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable(f"{path} can't be read: {error.strerror}", code="QD-JRN-009") from None
    return [_note(line) for line in content.split(b"\n")[:-1]]


def public_key(data_dir: Path) -> Verifier:
    """Raises SetupProblem (QD-JRN-008) when there is none or it is damaged."""
    path = data_dir / PUBLIC_KEY
    try:
        return Verifier.parse(path.read_text())
    except FileNotFoundError:
        problem = f"there is no journal key {path}"
    except (OSError, UnicodeDecodeError, ContractViolation) as error:
        problem = f"{path} can't be used: {error}"
    raise SetupProblem(
        problem, code="QD-JRN-008", hint="the journal writes it when it starts: has it run on this directory?"
    )


def _note(line: bytes) -> str:
    try:
        note = json.loads(line)
    except (ValueError, RecursionError):
        note = None
    return note if isinstance(note, str) else line.decode(errors="replace")


__all__ = [
    "LATEST",
    "LOG",
    "LOG_FILE",
    "PUBLIC_KEY",
    "bucket_notes",
    "notes_of",
    "public_key",
    "size_key",
    "verify",
]
