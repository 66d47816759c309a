"""The data directory: everything a run writes lies in it, and one quarterdeck at a time works on it."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from quarterdeck.kernel.errors import SetupProblem

PROBE_BYTES = 64 << 10
"""Written and synced at every start: a full disk is told before anything is acknowledged."""
CONNECT_TIMEOUT_S = 1.0


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running instance is found. It stands in `runtime.json`, readable by the owner only."""

    pid: int
    nats_url: str
    nats_monitor_url: str
    nkey: str
    """Path of the seed file that opens the bus."""
    gateway_url: str
    started_at_ms: int


class DataDir:
    """Paths below one data directory. Making one touches nothing; `prepare` does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def nats(self) -> Path:
        return self.path / "nats"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def sockets(self) -> Path:
        return self.path / "sockets"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def missions(self) -> Path:
        return self.path / "missions"

    @property
    def runtime_file(self) -> Path:
        return self.path / "runtime.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def bus_key(self) -> Path:
        return self.keys / "bus.nk"

    def prepare(self) -> None:
        """Make every folder, for the owner only, and see that it takes writes.

        Raises SetupProblem (QD-SET-008) when it can't be made or written, or when its disk is full.
        """
        folders = (self.nats, self.keys, self.journal, self.logs, self.sockets, self.runs, self.missions)
        probe = self.path / f".probe-{os.getpid()}"
        try:
            for folder in (self.path, *folders):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory while the block runs. The lock goes with the process, however it ends.

        Raises SetupProblem (QD-SET-009) with the holder's process id when another quarterdeck holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._in_use(os.pread(descriptor, 32, 0)) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def write_runtime(self, runtime: Runtime) -> None:
        """Replace `runtime.json` in one step: a reader sees the old one or the new one, never a part."""
        fresh = self.runtime_file.with_name(f"runtime.json.{os.getpid()}")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(runtime), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.runtime_file)
        except OSError as error:
            raise self._unusable(error) from None

    def read_runtime(self) -> Runtime | None:
        """What the running instance wrote; None when there is none or its process is gone."""
        try:
            runtime = msgspec.json.decode(self.runtime_file.read_bytes(), type=Runtime)
        except (OSError, msgspec.DecodeError):
            return None
        return runtime if _alive(runtime.pid) else None

    def clear_runtime(self) -> None:
        self.runtime_file.unlink(missing_ok=True)

    def live_instance(self) -> Runtime | None:
        """The instance whose process lives and whose bus takes connections; blocks for 1 s at most."""
        runtime = self.read_runtime()
        if runtime is None:
            return None
        address = urlsplit(runtime.nats_url)
        try:
            with socket.create_connection((address.hostname, address.port or 4222), CONNECT_TIMEOUT_S):
                return runtime
        except OSError:
            return None

    def _unusable(self, error: OSError) -> SetupProblem:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"the disk of the data directory {self.path} is full"
            hint = "free some space and start again; nothing that was acknowledged is lost"
        else:
            message = f"the data directory {self.path} can't be used: {error.strerror or error}"
            hint = "name another with --data-dir or QUARTERDECK_DATA_DIR, or make this one writable for you"
        return SetupProblem(message, code="QD-SET-008", hint=hint)

    def _in_use(self, holder: bytes) -> SetupProblem:
        pid = holder.decode(errors="replace").strip() or "unknown"
        return SetupProblem(
            f"another quarterdeck (process {pid}) uses the data directory {self.path}",
            code="QD-SET-009",
            hint=f"wait until it ends or stop it (kill {pid}), or name another with --data-dir",
        )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
