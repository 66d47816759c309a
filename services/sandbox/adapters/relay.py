"""Carries connections from loopback to a unix socket: the program of the Docker driver's sidecar.

Run as `python -I -S relay.py PORT PATH`, with the standard library alone, in a container that has no
network and is the only one to see PATH. It prints `ready` when it listens.
"""

import asyncio
import contextlib
import sys

CHUNK_BYTES = 64 << 10


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end, which is passed on: HTTP clients may half-close."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def carry(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # either side may leave at any time; the other one sees the close
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(path)
            try:
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
            finally:
                far_writer.close()
        finally:
            writer.close()


async def serve(port: int, path: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: carry(path, reader, writer), "127.0.0.1", port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
