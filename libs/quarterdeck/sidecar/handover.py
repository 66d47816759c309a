"""How the sandbox service gives a run's listening socket to the gateway, over a unix socket.

The protocol, one exchange a connection:

    sandbox -> gateway   4 bytes big-endian length, then that many bytes of JSON {"token", "traceparent"};
                         the listening socket travels with the first byte as SCM_RIGHTS
    gateway -> sandbox   one JSON object: {}, {"refusal": …} or {"error": …}; then the connection is closed

Whatever arrives on a listener that was handed over is that run: the token never enters the sandbox.
"""

import array
import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.errors import QuarterdeckError, Refused, Rejected, SetupProblem, Unavailable
from quarterdeck.telemetry.tracing import current_traceparent

log = structlog.get_logger("quarterdeck.handover")
MAX_MESSAGE_BYTES = 16 << 10
MAX_ANSWER_BYTES = 64 << 10
EXCHANGE_TIMEOUT_S = 10.0
BACKLOG = 64
_MAX_PATH_BYTES = 107
"""`sun_path` has 108 bytes and ends with a zero."""
_FD = struct.calcsize("i")
_LENGTH = struct.Struct("!I")

OnListener = Callable[[socket.socket, str, str], Awaitable[None]]
"""Given the listener, the mission token and the trace that the run belongs to. Raises Refused or Unavailable
to turn the listener down; it is closed then. From its return on the listener belongs to the callback."""


class _Handed(msgspec.Struct, frozen=True):
    token: str
    traceparent: str = ""


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    refusal: Rejected | None = None
    error: str = ""


def gateway_socket(data_dir: Path) -> Path:
    """Where the gateway of this data directory takes listeners; nothing is made.

    `<data_dir>/sockets/gateway.sock`, or, where that is too long for a unix socket, a short path of this user
    derived from it, the same for every process.
    """
    plain = data_dir.absolute() / "sockets" / "gateway.sock"
    if len(os.fsencode(plain)) <= _MAX_PATH_BYTES:
        return plain
    name = sha256(os.fsencode(data_dir.resolve()))[:16]
    # Not XDG_RUNTIME_DIR: a service and a shell may have different ones. Its owner and mode are checked.
    return Path("/tmp") / f"quarterdeck-{os.getuid()}-{name}" / "gateway.sock"  # noqa: S108


async def hand_over(gateway_socket: Path, listener: socket.socket, token: str) -> None:
    """Give `listener`, a bound and listening stream socket, to the gateway. The caller's own copy stays open.

    Returns when the gateway answers on it. Raises Refused when the token is not good, Unavailable
    (QD-GTW-030) when no gateway is there or it can't take it.
    """
    message = msgspec.json.encode(_Handed(token, current_traceparent()))
    try:
        async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
            answer = await _exchange(gateway_socket, listener, message)
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        raise Unavailable(
            f"no gateway takes listeners at {gateway_socket}: {error or type(error).__name__}",
            code="QD-GTW-030",
            hint="is the gateway running on this data directory?",
        ) from None
    if answer.refusal is not None:
        raise Refused(answer.refusal)
    if answer.error:
        raise Unavailable(f"the gateway did not take the listener: {answer.error}", code="QD-GTW-030")


async def _exchange(path: Path, listener: socket.socket, message: bytes) -> _Answer:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, str(path))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))]
        # A fresh unix socket takes these few bytes whole: it can't be full.
        framed = _LENGTH.pack(len(message)) + message
        if connection.sendmsg([framed], rights) != len(framed):
            raise OSError("the token did not fit into the socket's buffer")
        content = bytearray()
        while chunk := await loop.sock_recv(connection, 4096):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise OSError("an endless answer")
    return msgspec.json.decode(content, type=_Answer)


class HandoverServer:
    """Takes listeners at `path` from processes of the same user, until `close`."""

    def __init__(self, path: Path, on_listener: OnListener) -> None:
        self._path = path
        self._on_listener = on_listener
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._exchanges: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises SetupProblem (QD-SET-008) when the socket can't be made or another gateway lives there."""
        try:
            _own_directory(self._path.parent)
            _remove_stale(self._path)
            self._socket = _listening(self._path)
        except OSError as error:
            raise SetupProblem(
                f"can't listen at {self._path}: {error.strerror or error}",
                code="QD-SET-008",
                hint="the data directory must be on a local disk and belong to this user",
            ) from None
        self._accepting = asyncio.create_task(self._accept(self._socket))

    async def close(self) -> None:
        """Take no more. Listeners that were handed over stay with who got them."""
        tasks = [task for task in (self._accepting, *self._exchanges) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._path.unlink(missing_ok=True)
            self._socket = None

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listening)
            task = asyncio.create_task(self._serve(connection))
            self._exchanges.add(task)
            task.add_done_callback(self._exchanges.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            try:
                async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                    answer = await self._answer(connection)
                    await asyncio.get_running_loop().sock_sendall(connection, msgspec.json.encode(answer))
            except (OSError, TimeoutError) as error:
                log.warning("handover broken off", error=str(error) or type(error).__name__)

    async def _answer(self, connection: socket.socket) -> _Answer:
        listener: socket.socket | None = None
        try:
            listener, message = await _receive(connection)
            handed = msgspec.json.decode(message, type=_Handed)
            listener.setblocking(False)
            await self._on_listener(listener, handed.token, handed.traceparent)
            listener = None
        except Refused as error:
            return _Answer(refusal=error.rejection)
        except (QuarterdeckError, msgspec.DecodeError, ValueError) as error:
            return _Answer(error=str(error))
        finally:
            if listener is not None:
                listener.close()
        return _Answer()


async def _receive(connection: socket.socket) -> tuple[socket.socket, bytes]:
    """The listener and the message. Raises ValueError for anything that is not one exchange of ours."""
    content, listener = bytearray(), None
    try:
        while len(content) < _LENGTH.size or len(content) < _LENGTH.size + _LENGTH.unpack_from(content)[0]:
            if len(content) >= _LENGTH.size and _LENGTH.unpack_from(content)[0] > MAX_MESSAGE_BYTES:
                raise ValueError(f"a handover is at most {MAX_MESSAGE_BYTES:,} bytes")
            chunk, fds = await _receive_once(connection)
            listener = _adopt(fds, listener)
            if not chunk:
                raise ValueError("the handover ended early")
            content += chunk
        if listener is None:
            raise ValueError("no socket came with the handover")
    except BaseException:
        if listener is not None:
            listener.close()
        raise
    return listener, bytes(content[_LENGTH.size :])


async def _receive_once(connection: socket.socket) -> tuple[bytes, list[int]]:
    """`recvmsg` that waits: asyncio has no such thing, and `socket.recv_fds` ignores its flags."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            # CLOEXEC: a sandbox started at this moment must not inherit another run's listener.
            chunk, rights, flags, _ = connection.recvmsg(
                4096, socket.CMSG_SPACE(4 * _FD), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            readable = loop.create_future()
            loop.add_reader(connection.fileno(), _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(connection.fileno())
            continue
        fds = [fd for level, kind, sent in rights for fd in _descriptors(level, kind, sent)]
        if flags & socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise ValueError("more than one socket came with the handover")
        return chunk, fds


def _descriptors(level: int, kind: int, sent: bytes) -> list[int]:
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
        return []
    return list(array.array("i", sent[: len(sent) - len(sent) % _FD]))


def _wake(readable: "asyncio.Future[None]") -> None:
    if not readable.done():
        readable.set_result(None)


def _adopt(fds: list[int], known: socket.socket | None) -> socket.socket | None:
    """The one listening stream socket among all that came; everything else is closed."""
    if not fds:
        return known
    if known is not None or len(fds) > 1:
        for fd in fds:
            os.close(fd)
        raise ValueError("more than one socket came with the handover")
    try:
        listener = socket.socket(fileno=fds[0])
    except OSError:
        os.close(fds[0])
        raise ValueError("what came with the handover is not a socket") from None
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if (
        listener.family not in families
        or listener.type != socket.SOCK_STREAM
        or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        listener.close()
        raise ValueError("what came with the handover is not a listening stream socket")
    return listener


def _own_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = directory.lstat()
    # Below /tmp somebody else may have made it first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{directory} belongs to somebody else")
    directory.chmod(0o700)


def _remove_stale(path: Path) -> None:
    """A killed gateway leaves its socket file behind; a living one answers on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
    raise OSError("another gateway already listens there")


def _listening(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The directory is 0700 already, so nobody gets in between bind and chmod.
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
