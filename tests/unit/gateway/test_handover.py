"""A run's listening socket passes from the sandbox's side to the gateway's."""

import array
import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.kernel.errors import Refused, Rejected, SetupProblem, Unavailable
from quarterdeck.sidecar.handover import HandoverServer, gateway_socket, hand_over
from quarterdeck.testkit.eventually import eventually


def tcp_listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


class Taker:
    """What a gateway does with a listener, as little as can be seen from outside."""

    def __init__(self) -> None:
        self.taken: list[tuple[socket.socket, str, str]] = []
        self.refusal: Rejected | None = None

    async def __call__(self, listener: socket.socket, token: str, traceparent: str) -> None:
        if self.refusal is not None:
            raise Refused(self.refusal)
        self.taken.append((listener, token, traceparent))


@pytest.fixture
async def taker(tmp_path: Path) -> AsyncIterator[Taker]:
    taker = Taker()
    server = HandoverServer(gateway_socket(tmp_path), taker)
    await server.start()
    yield taker
    await server.close()
    for listener, _, _ in taker.taken:
        listener.close()


@pytest.mark.parametrize("family", ["tcp", "unix"])
async def test_a_listener_arrives_with_its_token(taker: Taker, tmp_path: Path, family: str) -> None:
    """What connects to the sandbox's listener is accepted on the gateway's copy, which outlives the first."""
    if family == "tcp":
        listener = tcp_listener()
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(tmp_path / "edge.sock"))
        listener.listen(1)
    address = listener.getsockname()
    await hand_over(gateway_socket(tmp_path), listener, "qdm1.token")
    listener.close()
    taken, token, _ = taker.taken[0]
    assert token == "qdm1.token"
    assert not os.get_inheritable(taken.fileno())
    with socket.socket(taken.family, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, address)
        accepted, _ = await asyncio.get_running_loop().sock_accept(taken)
        accepted.close()


async def test_a_refusal_comes_back_as_it_was(taker: Taker, tmp_path: Path) -> None:
    """The sandbox's side hears the gateway's refusal with its code."""
    taker.refusal = Rejected(code="QD-MIS-022", reason="run_over", message="run r1 is over")
    with tcp_listener() as listener, pytest.raises(Refused) as refused:
        await hand_over(gateway_socket(tmp_path), listener, "t")
    assert refused.value.rejection == taker.refusal


async def test_without_a_gateway_it_says_so(tmp_path: Path) -> None:
    """No socket, or a dead one, is Unavailable and names the path."""
    with tcp_listener() as listener, pytest.raises(Unavailable, match=r"gateway\.sock") as failed:
        await hand_over(gateway_socket(tmp_path), listener, "t")
    assert failed.value.code == "QD-GTW-030"


async def test_only_a_listening_socket_is_taken(taker: Taker, tmp_path: Path) -> None:
    """A socket that does not listen is turned down and reaches nobody."""
    with socket.socket() as idle, pytest.raises(Unavailable, match="not a listening stream socket"):
        await hand_over(gateway_socket(tmp_path), idle, "t")
    assert taker.taken == []


async def _raw(path: Path, content: bytes, fds: list[int]) -> bytes:
    """An exchange that is not of our making; the gateway's answer."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, str(path))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        connection.sendmsg([content], rights)
        connection.shutdown(socket.SHUT_WR)
        return await loop.sock_recv(connection, 4096)


@pytest.mark.parametrize(
    ("content", "sockets", "why"),
    [
        (b"\x00\x00\x00\x02{}", 1, "token"),
        (b"\x7f\xff\xff\xff{}", 1, "at most"),
        (b"\x00\x00\x00\xff{}", 1, "ended early"),
        (b'\x00\x00\x00\x0d{"token":"t"}', 0, "no socket"),
        (b'\x00\x00\x00\x0d{"token":"t"}', 2, "more than one"),
        (b'\x00\x00\x00\x0d{"token":"t"}', 9, "more than one"),
    ],
)
async def test_what_is_no_handover_is_answered_and_leaks_nothing(
    taker: Taker, tmp_path: Path, content: bytes, sockets: int, why: str
) -> None:
    """Malformed exchanges are answered with what is wrong; no descriptor that came with them stays open."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(tcp_listener()) for _ in range(sockets)]
        before = len(os.listdir("/proc/self/fd"))
        answer = await _raw(gateway_socket(tmp_path), content, [listener.fileno() for listener in listeners])
        assert why in answer.decode()

        async def as_before() -> bool:
            return len(os.listdir("/proc/self/fd")) == before

        await eventually(as_before)
    assert taker.taken == []


async def test_nobody_else_can_reach_the_socket(taker: Taker, tmp_path: Path) -> None:
    """The socket is 0600 in a directory that is 0700."""
    path = gateway_socket(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_second_gateway_is_refused_and_a_dead_ones_socket_is_replaced(tmp_path: Path) -> None:
    """A living gateway keeps its socket (QD-SET-008); the file of a killed one is no hindrance."""
    path = gateway_socket(tmp_path)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    first, second = HandoverServer(path, Taker()), HandoverServer(path, Taker())
    await first.start()
    with pytest.raises(SetupProblem) as refused:
        await second.start()
    assert refused.value.code == "QD-SET-008"
    await first.close()
    assert not path.exists()


def test_a_long_data_directory_gets_a_short_path(tmp_path: Path) -> None:
    """A path that no unix socket can have is replaced by a short one, the same whenever it is asked for."""
    long = tmp_path / ("x" * 120)
    short = gateway_socket(long)
    assert len(os.fsencode(short)) <= 107
    assert short == gateway_socket(long)
    assert short != gateway_socket(tmp_path / ("y" * 120))
    assert gateway_socket(tmp_path) == tmp_path / "sockets" / "gateway.sock"
