"""The key ring: versioned 256-bit keys in one file, for its owner only. The newest encrypts, all decrypt."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quarterdeck.chassis.keys import secret_file
from quarterdeck.kernel.errors import SetupProblem

KEY_BYTES = 32


class Ring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content: JSON, keys in base64."""

    current: int
    keys: dict[int, bytes]

    def __repr__(self) -> str:
        return f"Ring(current={self.current}, versions={sorted(self.keys)})"


class KeyRing:
    """Read anew at each use: a rotation by another process holds from then on."""

    def __init__(self, path: Path) -> None:
        """Makes the ring with its first key when there is none. Raises SetupProblem when it can't be used."""
        self._path = path
        secret_file(path, msgspec.json.encode(Ring(current=1, keys={1: os.urandom(KEY_BYTES)})))
        self._read()

    def current(self) -> tuple[int, bytes]:
        """The version to encrypt with, and its key."""
        ring = self._read()
        return ring.current, ring.keys[ring.current]

    def key(self, version: int) -> bytes | None:
        return self._read().keys.get(version)

    def rotate(self) -> int:
        """Add a key and make it the current one; return its version. Older keys go on decrypting."""
        with self._alone():
            ring = self._read()
            version = max(ring.keys) + 1
            keys = {**ring.keys, version: os.urandom(KEY_BYTES)}
            self._replace(msgspec.json.encode(Ring(current=version, keys=keys)))
        return version

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two rotations at once must not lose a key: one waits for the other."""
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
            os.fsync(directory)
        finally:
            os.close(directory)

    def _replace(self, content: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=self._path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except OSError:
            os.unlink(temporary)
            raise

    def _read(self) -> Ring:
        try:
            if self._path.stat().st_mode & 0o077:
                raise _unusable(self._path, "others can read it", f"chmod 600 {self._path}")
            ring = msgspec.json.decode(self._path.read_bytes(), type=Ring)
        except OSError as error:
            raise _unusable(self._path, error.strerror or "can't be read", RESTORE) from None
        except msgspec.DecodeError:
            raise _unusable(self._path, "it is damaged", RESTORE) from None
        if ring.current not in ring.keys or any(len(key) != KEY_BYTES for key in ring.keys.values()):
            raise _unusable(self._path, "it is damaged", RESTORE)
        return ring


RESTORE = "restore it from a backup: without it no stored secret can be read"


def _unusable(path: Path, why: str, hint: str) -> SetupProblem:
    return SetupProblem(f"the vault's key ring {path} can't be used: {why}", code="QD-VLT-020", hint=hint)
