"""What only the Docker driver has: containers that outlive the service, a sidecar, a daemon that may go away.

Everything it shares with the other driver is tried in test_sandbox_isolation.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiodocker
import pytest

from quarterdeck.testkit.eventually import eventually
from services.sandbox.adapters.containers import edge_folders
from services.sandbox.adapters.docker import SOCKET, Docker
from services.sandbox.ports import PYTHON, Limits, SandboxSpec

PROJECT = Path(__file__).parents[2]


def daemon_problem() -> str:
    try:
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(SOCKET)
    except OSError as error:
        return f"no Docker daemon at {SOCKET} ({error.strerror}): install docker.io, start dockerd"
    return ""


pytestmark = pytest.mark.skipif(bool(daemon_problem()), reason=daemon_problem())


@pytest.fixture
async def client() -> AsyncIterator[aiodocker.Docker]:
    async with aiodocker.Docker(url=f"unix://{SOCKET}") as client:
        yield client


@pytest.fixture
async def driver() -> AsyncIterator[Docker]:
    driver = Docker(f"test{os.getpid()}")
    yield driver
    await driver.close()


def spec(folder: Path, code: str, run_id: str = "run-1") -> SandboxSpec:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    argv = (PYTHON, "-c", code)
    return SandboxSpec(run_id=run_id, argv=argv, env={}, work_dir=str(work), limits=Limits(wall_ms=60_000))


async def test_the_agent_does_not_see_the_sidecars_socket(driver: Docker, tmp_path: Path) -> None:
    """The edge's unix socket and its folder exist in the sidecar alone."""
    code = "import os; print(os.path.exists('/edge'), [m for m in open('/proc/self/mounts') if 'edge' in m])"
    sandbox = await driver.start(spec(tmp_path, code))
    with sandbox.edge:
        end = await sandbox.wait()
    assert end.output_tail == b"False []\n", end


async def test_the_image_is_made_here_and_nearly_empty(
    driver: Docker, client: aiodocker.Docker, tmp_path: Path
) -> None:
    """The image comes from no registry and holds but links and a few made-up files."""
    sandbox = await driver.start(spec(tmp_path, "pass"))
    with sandbox.edge:
        await sandbox.wait()
    image = await client.images.inspect(driver._image)
    assert image["RepoDigests"] == [] and image["Size"] < 10_000


async def test_a_removed_container_is_lost(driver: Docker, client: aiodocker.Docker, tmp_path: Path) -> None:
    """When the agent's container is taken away under it, the end is `lost` or its kill, never a success."""
    sandbox = await driver.start(spec(tmp_path, "import time; time.sleep(60)"))
    with sandbox.edge:
        await client.containers.container(f"quarterdeck-test{os.getpid()}-run-1-agent").delete(force=True)
        end = await sandbox.wait()
    assert end.kind == "lost" or end.code == 137, end


async def test_a_dead_sidecar_ends_the_run_as_lost(
    driver: Docker, client: aiodocker.Docker, tmp_path: Path
) -> None:
    """Without its only way out a run does not go on."""
    sandbox = await driver.start(spec(tmp_path, "import time; time.sleep(60)"))
    with sandbox.edge:
        await client.containers.container(f"quarterdeck-test{os.getpid()}-run-1-edge").kill()
        end = await sandbox.wait()
    assert (end.kind, end.code) == ("lost", None) and "sidecar" in end.detail


async def test_nothing_is_left_after_the_end(
    driver: Docker, client: aiodocker.Docker, tmp_path: Path
) -> None:
    """Both containers and the edge's folder are gone when `wait` returns."""
    sandbox = await driver.start(spec(tmp_path, "pass"))
    with sandbox.edge:
        await sandbox.wait()
    assert await of_owner(client, f"test{os.getpid()}") == []
    assert edge_folders(f"test{os.getpid()}", ()) == []


SERVICE = """
import asyncio, sys
from services.sandbox.adapters.docker import Docker
from services.sandbox.ports import PYTHON, SandboxSpec
async def main():
    driver = Docker(sys.argv[2])
    argv = (PYTHON, "-c", "import time; time.sleep(600)")
    for run_id in ("stays", "goes"):
        await driver.start(SandboxSpec(run_id=run_id, argv=argv, env={}, work_dir=sys.argv[1]))
    print("started", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_sweep_ends_what_a_killed_service_left(client: aiodocker.Docker, tmp_path: Path) -> None:
    """After kill -9 of the service its containers run on until a sweep, which spares those named alive."""
    owner = f"swept{os.getpid()}"
    argv = [sys.executable, "-c", SERVICE, str(tmp_path), owner]
    with subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE) as service:
        try:
            await eventually(lambda: running(client, owner, 4), within_s=30)
        finally:
            service.kill()
    successor = Docker(owner)
    try:
        assert await successor.sweep({"stays"}) == ["goes"]
        assert len(await of_owner(client, owner)) == 2
        assert len(edge_folders(owner, ())) == 1 and edge_folders(owner, {"stays"}) == []
        assert await successor.sweep(()) == ["stays"]
        assert await of_owner(client, owner) == []
    finally:
        await successor.close()


async def of_owner(client: aiodocker.Docker, owner: str) -> list[str]:
    filters = json.dumps({"label": [f"quarterdeck.owner={owner}"]})
    return [container.id for container in await client.containers.list(all=True, filters=filters)]


async def running(client: aiodocker.Docker, owner: str, count: int) -> bool:
    return len(await of_owner(client, owner)) == count
