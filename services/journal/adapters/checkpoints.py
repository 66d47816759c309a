"""Signed heads: appended to a file outside of NATS, then put into the bucket CHECKPOINTS."""

import asyncio
import json
import os
from pathlib import Path

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from quarterdeck.bus.streams import KV_CHECKPOINTS
from quarterdeck.client.verification import LATEST, LOG_FILE, bucket_notes, notes_of, size_key
from quarterdeck.kernel.errors import Unavailable


class HeadLog:
    """See `ports.CheckpointLog`. One writer: the journal service."""

    def __init__(self, connection: Nats, directory: Path, *, replicas: int = 1) -> None:
        self._connection = connection
        self._path = directory / LOG_FILE
        self._replicas = replicas
        self._bucket: KeyValue | None = None
        self._last_line: bytes | None = None
        """Of the file; None: not looked at yet."""
        self._unput: tuple[int, str] | None = None
        """In the file and perhaps not in the bucket: put before anything else is written, so that only the
        file's last note can ever be missing there."""

    async def last(self) -> str | None:
        """Without a file the bucket speaks: a new chain must not begin beside heads that are still known."""
        notes = await asyncio.to_thread(notes_of, self._path)
        if not notes:
            notes = await bucket_notes(self._connection)
        return notes[-1] if notes else None

    async def add(self, size: int, note: str) -> None:
        if self._unput is not None:
            await self._put(*self._unput)
        await asyncio.to_thread(self._append, note)
        self._unput = (size, note)
        await self._put(size, note)
        self._unput = None

    def _append(self, note: str) -> None:
        """Raises Unavailable when the disk doesn't take it."""
        line = json.dumps(note, ensure_ascii=False).encode() + b"\n"
        try:
            if self._last_line is None:
                self._last_line = self._mended()
            if line == self._last_line:
                return
            with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND), "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._last_line = None
            raise Unavailable(
                f"{self._path} can't be written: {error.strerror}",
                code="QD-JRN-009",
                hint="free space on the disk of the data directory",
            ) from None
        self._last_line = line

    def _mended(self) -> bytes:
        """The last whole line of the file, which is made if it is missing. A line without its end was being
        written when its writer was killed: nobody was told of it, and it is cut off."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            file.truncate(whole)
            os.fsync(file.fileno())
        return content[content.rfind(b"\n", 0, max(whole - 1, 0)) + 1 : whole]

    async def _put(self, size: int, note: str) -> None:
        try:
            if self._bucket is None:
                config = KeyValueConfig(
                    bucket=KV_CHECKPOINTS, history=1, replicas=self._replicas, direct=True
                )
                self._bucket = await self._connection.jetstream().create_key_value(config)
            for key in (size_key(size), LATEST):
                await self._bucket.put(key, note.encode())
        except (NatsError, TimeoutError, OSError) as error:
            self._bucket = None
            raise Unavailable(
                f"the bucket {KV_CHECKPOINTS} did not take a head: {error or type(error).__name__}"
            ) from None
