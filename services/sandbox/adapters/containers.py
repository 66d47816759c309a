"""The two containers of one run under Docker: how they are configured, and the sandbox they make."""

import asyncio
import contextlib
import json
import os
import platform
import secrets
import shutil
import socket
import tempfile
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import DockerError
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from services.sandbox.adapters import cgroups, runtime, seccomp
from services.sandbox.adapters.output import PACE_S
from services.sandbox.adapters.running import Running
from services.sandbox.ports import PYTHON, WORK_DIR, OnOutput, SandboxSpec, SandboxUnavailable

OWNER_LABEL, RUN_LABEL = "quarterdeck.owner", "quarterdeck.run"
READY_TIMEOUT_S = 20
DRAIN_S = 5
KILLED = 137
LEAST_MEMORY_BYTES = 6 << 20
"""The daemon refuses less."""
SIDECAR_MEMORY_BYTES = 64 << 20

DAEMON_ERRORS = (DockerError, aiohttp.ClientError, OSError)
"""What a daemon that refuses, is not there or goes away is seen as."""

_HERE = Path(__file__).parent
_PROGRAMS = "/.quarterdeck"
_EDGE_FOLDER, _EDGE_NAME = "/edge", "edge.sock"
_MASKED = (
    "/sys",
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
)


class Pair:
    """What one run has on this machine: a folder with the edge's socket, a sidecar, an agent."""

    def __init__(self, owner: str, run_id: str) -> None:
        self.name = f"quarterdeck-{owner}-{run_id}"
        self.folder = Path(f"{_folder_start(owner, run_id)}{secrets.token_hex(4)}")
        self.sidecar: DockerContainer | None = None
        self.agent: DockerContainer | None = None
        # Only we can pass the outer folder; the inner one is what the sidecar gets, which has another uid.
        os.mkdir(self.folder, 0o700)
        self.shared = self.folder / "edge"
        self.shared.mkdir(0o755)
        path = str(self.shared / _EDGE_NAME)
        self.edge = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.edge.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - behind the outer folder, which lets nobody pass
        self.edge.listen(128)
        self.edge.setblocking(False)

    async def remove(self) -> None:
        """Everything but the edge, which belongs to the caller of the driver."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for container in (self.agent, self.sidecar):
            if container is not None:
                await delete(container)


def edge_folders(owner: str, spared: Collection[str]) -> list[Path]:
    """The folders of all runs of `owner` on this machine but those of the runs `spared`."""
    kept = tuple(_folder_start(owner, run_id) for run_id in spared)
    everything = Path(tempfile.gettempdir()).glob(f"qd-{owner[:32]}-*")
    return [folder for folder in everything if not str(folder).startswith(kept)]


def _folder_start(owner: str, run_id: str) -> str:
    """Short, because the path of a unix socket may have 107 bytes."""
    return f"{tempfile.gettempdir()}/qd-{owner[:32]}-{sha256(run_id.encode()).hexdigest()[:12]}-"


def common(image: str, owner: str, run_id: str, ids: tuple[int, int]) -> dict[str, Any]:
    """What both containers have.

    The daemon's own system call profile gives way to ours, the same as under bubblewrap: older daemons let
    AF_VSOCK through.
    """
    profile = seccomp.docker_profile(platform.machine())
    return {
        "Image": image,
        "User": f"{ids[0]}:{ids[1]}",
        "Labels": {OWNER_LABEL: owner, RUN_LABEL: run_id},
        "HostConfig": {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={profile}"],
            "ReadonlyRootfs": True,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "MaskedPaths": list(_MASKED),
            "LogConfig": {"Type": "none"},
            "OomScoreAdj": 800,
        },
    }


def sidecar(base: dict[str, Any], root: runtime.Root, edge_port: int, shared: Path) -> dict[str, Any]:
    """No network, the runtime, the relay, and alone the folder with the edge's socket."""
    own = [bind for bind in root.binds if not bind.writable]
    binds = [*_binds(own), _program("relay.py"), f"{shared}:{_EDGE_FOLDER}:rw"]
    host = {
        "NetworkMode": "none",
        "Binds": binds,
        "Memory": SIDECAR_MEMORY_BYTES,
        "MemorySwap": SIDECAR_MEMORY_BYTES,
        "PidsLimit": 8,
    }
    argv = [
        PYTHON,
        "-I",
        "-S",
        f"{_PROGRAMS}/relay.py",
        str(edge_port),
        f"{_EDGE_FOLDER}/{_EDGE_NAME}",
    ]
    return base | {"Hostname": "sandbox", "Entrypoint": argv, "HostConfig": base["HostConfig"] | host}


def agent(base: dict[str, Any], root: runtime.Root, spec: SandboxSpec, sidecar_id: str) -> dict[str, Any]:
    """The sidecar's loopback, the spec's directories and limits."""
    limits = spec.limits
    memory_bytes = max(limits.memory_bytes, LEAST_MEMORY_BYTES)
    files = {"fsize": limits.file_bytes, "core": 0, "nofile": 1_024}
    host = {
        "NetworkMode": f"container:{sidecar_id}",
        # The daemon would show a copy of the host's resolv.conf.
        "Binds": [*_binds(list(root.binds)), _program("init.py"), "/dev/null:/etc/resolv.conf:ro"],
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={memory_bytes // 4}"},  # noqa: S108 - inside
        "ShmSize": memory_bytes // 8,
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "PidsLimit": limits.processes + cgroups.EXTRA_PROCESSES,
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in files.items()],
    }
    env = json.dumps(spec.env | {"PWD": WORK_DIR})
    argv = [PYTHON, "-I", "-S", f"{_PROGRAMS}/init.py", env, *spec.argv]
    return base | {"WorkingDir": WORK_DIR, "Entrypoint": argv, "HostConfig": base["HostConfig"] | host}


async def start_sidecar(container: DockerContainer) -> None:
    """Start it and wait until it listens: the agent must not come first."""
    text, ended = b"", False
    async with container.attach(stdout=True, stderr=True) as attached:
        await container.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_TIMEOUT_S):
                while b"ready\n" not in text and not ended:
                    message = await attached.read_out()
                    text += message.data if message else b""
                    ended = message is None
    if b"ready\n" not in text:
        problem = "ended before it listened" if ended else f"did not listen within {READY_TIMEOUT_S} s"
        said = text.decode("utf-8", "replace").strip()[-400:]
        raise SandboxUnavailable(f"the sidecar {problem}: {said}", code="QD-SBX-106")


async def delete(container: DockerContainer) -> None:
    """Force it away; one that is gone or going is fine."""
    try:
        await container.delete(force=True, v=True)
    except DockerError as error:
        if error.status not in {404, 409}:
            raise


class DockerSandbox(Running):
    """`pair` and `attached` become this object's; a pair that can't be removed goes to `left`."""

    driver = "docker"

    def __init__(
        self,
        spec: SandboxSpec,
        pair: Pair,
        attached: Stream,
        pid: int,
        *,
        on_output: OnOutput | None,
        left: list[Pair],
    ) -> None:
        super().__init__(spec, pair.edge, pid, on_output)
        assert pair.agent is not None and pair.sidecar is not None
        self._pair, self._agent, self._sidecar, self._left = pair, pair.agent, pair.sidecar, left
        self._memory = cgroups.memory_folder(pid)
        self._out_of_memory = self._killed = False
        self._why = "the container was killed from outside"
        self._reader = asyncio.create_task(self._read(attached))
        self._begin()

    @property
    def limits_held(self) -> dict[str, str]:
        return {
            "memory_bytes": "docker (cgroup)",
            "processes": "docker (cgroup)",
            "file_bytes": "rlimit, sized tmpfs",
            "wall_ms": "watch",
            "output_bytes": "bounded stream",
        }

    async def _gone(self) -> int | None:
        ends = [asyncio.create_task(container.wait()) for container in (self._agent, self._sidecar)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not ends[0].done():
                self._why = "its sidecar died, and with it the only way out"
                await self._kill()
            code: int = (await ends[0])["StatusCode"]
            self._out_of_memory = (await self._agent.show())["State"]["OOMKilled"]
            await asyncio.wait([self._reader], timeout=DRAIN_S)
        except DAEMON_ERRORS as error:
            self._why = f"the Docker daemon no longer knows of it: {error}"
            return None
        finally:
            for task in (*ends, self._reader):
                task.cancel()
            await asyncio.gather(*ends, self._reader, return_exceptions=True)
        return None if self._killed and code == KILLED else code

    async def _terminate(self) -> None:
        await self._signal("SIGTERM")

    async def _kill(self) -> None:
        if not self._end.done():
            self._killed = True
            await self._signal("SIGKILL")

    async def _signal(self, name: str) -> None:
        try:
            await self._agent.kill(signal=name)
        except DockerError as error:
            if error.status not in {404, 409}:  # it has ended meanwhile
                raise

    def _sample(self) -> tuple[int, bool]:
        if self._memory is None:
            return 0, self._out_of_memory
        over = self._out_of_memory or cgroups.was_out_of_memory(self._memory)
        return cgroups.peak_bytes(self._memory), over

    async def _clear(self) -> None:
        try:
            await self._pair.remove()
        except DAEMON_ERRORS:
            self._left.append(self._pair)  # a daemon that is away; its containers may run on

    def _last_words(self) -> str:
        return self._why

    async def _read(self, attached: Stream) -> None:
        try:
            while (message := await attached.read_out()) is not None:
                self._output.feed("stdout" if message.stream == 1 else "stderr", message.data)
                if self._output.over_limit:
                    await asyncio.sleep(PACE_S)
        finally:
            await attached.close()


def _binds(binds: list[runtime.Bind]) -> list[str]:
    return [f"{bind.source}:{bind.target}:{'rw' if bind.writable else 'ro'}" for bind in binds]


def _program(name: str) -> str:
    return f"{_HERE / name}:{_PROGRAMS}/{name}:ro"
