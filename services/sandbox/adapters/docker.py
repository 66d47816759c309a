"""The driver over a Docker daemon on this machine, for where user namespaces are forbidden.

A run is two containers of one local image. The sidecar has no network and alone sees the unix socket of the
edge; the agent shares the sidecar's loopback and nothing else. Containers outlive this process: `sweep`
when the service starts again.
"""

import asyncio
import json
import os
import platform
import secrets
import shutil
from collections.abc import Collection
from typing import Any

import aiohttp
from aiodocker import Docker as Client
from aiodocker import DockerError

from services.sandbox.adapters import containers, image, runtime
from services.sandbox.adapters.containers import DAEMON_ERRORS, DockerSandbox, Pair
from services.sandbox.adapters.identity import agent_ids
from services.sandbox.adapters.running import Registry
from services.sandbox.adapters.trial import trial
from services.sandbox.ports import Finding, OnOutput, SandboxSpec, SandboxUnavailable

NAME = "docker"
SOCKET = "/var/run/docker.sock"
_FIX = (
    "install Docker (Debian: apt-get install docker.io), start it, and let this user reach its socket"
    " (usermod -aG docker USER)"
)


class Docker:
    """See `ports.Driver`.

    `owner`: names this installation, so that a sweep touches only its own; at most 32 of a-z, 0-9.
    `socket_path`: the daemon's unix socket. A daemon elsewhere could not show this machine's files.
    """

    name = NAME

    def __init__(self, owner: str | None = None, socket_path: str = SOCKET) -> None:
        self._owner = owner or secrets.token_hex(8)
        self._socket_path = socket_path
        self._client: Client | None = None
        self._connector: aiohttp.BaseConnector | None = None
        self._image_lock = asyncio.Lock()
        self._image = ""
        self._sandboxes: Registry[DockerSandbox] = Registry()
        self._left: list[Pair] = []

    async def start(self, spec: SandboxSpec, on_output: OnOutput | None = None) -> DockerSandbox:
        root = runtime.plan(runtime.host_root(), spec)
        ids = agent_ids(fixed=True)
        if os.geteuid() == 0:
            runtime.make_readable_by(*ids, root)
        with self._sandboxes.starting(spec.run_id):
            try:
                await self._remove_left()
                return self._sandboxes.add(await self._make(spec, root, ids, on_output))
            except DAEMON_ERRORS as error:
                self._image = ""  # somebody may have removed it: the next start looks
                raise self._translated(error) from error

    async def probe(self) -> list[Finding]:
        try:
            version = await self._docker().version()
        except DAEMON_ERRORS as error:
            problem = self._translated(error)
            return [
                Finding(check="docker", ok=False, what=problem.message, fix=problem.hint, code=problem.code)
            ]
        found = Finding(check="docker", ok=True, what=f"Docker {version['Version']} at {self._socket_path}")
        fix = (
            "the Docker daemon has to run on this machine, with its files, not in another one or a container"
        )
        return [found, *await trial(self, fix)]

    async def sweep(self, run_ids_alive: Collection[str]) -> list[str]:
        spared = {*run_ids_alive, *self._sandboxes.live()}
        filters = json.dumps({"label": [f"{containers.OWNER_LABEL}={self._owner}"]})
        found = set()
        try:
            for container in await self._docker().containers.list(all=True, filters=filters):
                run_id = container["Labels"][containers.RUN_LABEL]
                if run_id not in spared:
                    found.add(run_id)
                    await containers.delete(container)
        except DAEMON_ERRORS as error:
            raise self._translated(error) from error
        for folder in containers.edge_folders(self._owner, spared):
            shutil.rmtree(folder, ignore_errors=True)
        return sorted(found)

    async def close(self) -> None:
        try:
            await self._sandboxes.stop_all()
        finally:
            if self._client is not None:
                await self._client.close()
            if self._connector is not None:
                await self._connector.close()
            self._client = self._connector = None

    def _docker(self) -> Client:
        if self._client is None:
            # Each sandbox keeps three requests open: the default of 100 connections would be 33 sandboxes.
            self._connector = aiohttp.UnixConnector(self._socket_path, limit=0)
            self._client = Client(url="unix://localhost", connector=self._connector)
        return self._client

    async def _make(
        self, spec: SandboxSpec, root: runtime.Root, ids: tuple[int, int], on_output: OnOutput | None
    ) -> DockerSandbox:
        tag = await self._load_image()
        base = containers.common(tag, self._owner, spec.run_id, ids)
        pair = _pair(self._owner, spec.run_id)
        try:
            return await self._fill(pair, base, spec, root, on_output)
        except BaseException:
            pair.edge.close()
            try:
                await pair.remove()
            except DAEMON_ERRORS:
                self._left.append(pair)
            raise

    async def _fill(
        self,
        pair: Pair,
        base: dict[str, Any],
        spec: SandboxSpec,
        root: runtime.Root,
        on_output: OnOutput | None,
    ) -> DockerSandbox:
        """Sidecar first: the agent must find its edge listening."""
        make = self._docker().containers.create
        sidecar = containers.sidecar(base, runtime.host_root(), spec.edge_port, pair.shared)
        pair.sidecar = await make(sidecar, name=f"{pair.name}-edge")
        await containers.start_sidecar(pair.sidecar)
        agent = containers.agent(base, root, spec, pair.sidecar.id)
        pair.agent = await make(agent, name=f"{pair.name}-agent")
        attached = pair.agent.attach(stdout=True, stderr=True)
        try:
            await attached.__aenter__()
            await pair.agent.start()
            pid = (await pair.agent.show())["State"]["Pid"]
        except BaseException:
            await attached.close()
            raise
        return DockerSandbox(spec, pair, attached, pid, on_output=on_output, left=self._left)

    async def _remove_left(self) -> None:
        """What ran on while the daemon was away, now that it may be back."""
        while self._left:
            await self._left[-1].remove()
            self._left.pop()

    async def _load_image(self) -> str:
        """The image's tag; made and loaded unless the daemon has it. Nothing is ever pulled."""
        async with self._image_lock:
            if not self._image:
                tag, content = image.archive(runtime.host_root(), platform.machine())
                images = self._docker().images
                try:
                    await images.inspect(tag)
                except DockerError as error:
                    if error.status != 404:
                        raise
                    await images.import_image(content)
                self._image = tag
            return self._image

    def _translated(self, error: Exception) -> SandboxUnavailable:
        if isinstance(error, DockerError) and error.status != 900:  # the client's own for "no connection"
            return SandboxUnavailable(
                f"the Docker daemon refused: {error.message}"[:600],
                code="QD-SBX-106",
                hint="docker info and the daemon's log say more",
            )
        return SandboxUnavailable(
            f"no Docker daemon answers at {self._socket_path}: {error}", code="QD-SBX-105", hint=_FIX
        )


def _pair(owner: str, run_id: str) -> Pair:
    try:
        return Pair(owner, run_id)
    except OSError as error:
        raise SandboxUnavailable(
            f"the edge's socket can't be made: {error}", hint="set TMPDIR to a short, writable path"
        ) from error
