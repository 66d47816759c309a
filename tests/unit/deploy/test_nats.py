"""The bus of the containers, with the real nats-server, in a directory of the test."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from quarterdeck.bus.connection import connect
from quarterdeck.bus.embedded import binary, free_port
from quarterdeck.chassis import BusSettings
from quarterdeck.chassis.durability import require_sync
from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.testkit.eventually import eventually

DEPLOY = Path(__file__).parents[3] / "deploy" / "nats"
CONF = DEPLOY / "nats.conf"


def _init(seed: Path, config: Path) -> None:
    subprocess.run([sys.executable, str(DEPLOY / "init.py"), str(seed), str(config)], check=True, timeout=30)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """What `init` leaves: the seed, and the server's users beside the configuration."""
    (tmp_path / "users").mkdir()
    seed = tmp_path / "bus" / "bus.nk"
    _init(seed, tmp_path / "users" / "authorization.conf")
    return seed


def _configured(directory: Path, port: int, monitor_port: int) -> Path:
    """The configuration as it is, but for what belongs to the container."""
    text = CONF.read_text()
    for theirs, ours in (
        ("0.0.0.0:4222", f"127.0.0.1:{port}"),
        ("0.0.0.0:8222", f"127.0.0.1:{monitor_port}"),
        ("/var/lib/quarterdeck/nats", str(directory / "store")),
    ):
        assert text.count(theirs) == 1, theirs
        text = text.replace(theirs, ours)
    conf = directory / "nats.conf"
    conf.write_text(text)
    return conf


def _try(conf: Path) -> "subprocess.CompletedProcess[str]":
    command = [binary(), "-t", "-c", str(conf)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def test_every_write_is_synced() -> None:
    """INV-3: the server that the services trust is told to sync each write, and nothing undoes that."""
    lines = [line.split("#")[0].strip() for line in CONF.read_text().splitlines()]
    assert [line for line in lines if line.startswith("sync_interval")] == ["sync_interval: always"]


def test_the_real_server_takes_the_configuration(tmp_path: Path, seed: Path) -> None:
    """`nats-server -t` finds nothing wrong with it, the users that init wrote included."""
    conf = _configured(tmp_path, 4222, 8222)
    tested = _try(conf)
    assert tested.returncode == 0, tested.stderr


def test_without_its_users_the_server_does_not_start(tmp_path: Path) -> None:
    """A bus that init did not set up is closed, not open to everybody."""
    conf = _configured(tmp_path, 4222, 8222)
    tested = _try(conf)
    assert tested.returncode != 0
    assert "authorization.conf" in tested.stderr


def test_init_keeps_what_is_there(tmp_path: Path, seed: Path) -> None:
    """Run at every start, it changes neither the user nor the seed, which is its owner's alone to read."""
    config = tmp_path / "users" / "authorization.conf"
    before = seed.read_bytes(), config.read_text()
    _init(seed, config)
    assert (seed.read_bytes(), config.read_text()) == before
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    assert seed.read_text().strip() not in config.read_text()
    assert sorted(os.listdir(config.parent)) == [config.name]


async def test_the_bus_opens_to_the_key_alone_and_satisfies_the_services(tmp_path: Path, seed: Path) -> None:
    """A service sees that writes are synced and gets in with the key; without it nobody does."""
    port, monitor_port = free_port(), free_port()
    url, monitor_url = f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor_port}"
    conf = _configured(tmp_path, port, monitor_port)
    with (tmp_path / "log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(binary(), "-c", str(conf), stdout=log, stderr=log)
    try:
        async with httpx.AsyncClient(trust_env=False) as client:

            async def healthy() -> bool:
                try:
                    return (await client.get(f"{monitor_url}/healthz")).status_code == 200
                except httpx.HTTPError:
                    return False

            await eventually(healthy)
        await require_sync(BusSettings(nats_monitor_url=monitor_url))
        with pytest.raises(SetupProblem, match="without a key") as refused:
            await connect(url, name="stranger")
        assert refused.value.code == "QD-SET-005"
        connection = await connect(url, name="service", nkey_seed=seed)
        await connection.close()
    finally:
        server.terminate()
        await server.wait()
