"""Signing keys of services: made on first start, readable by their owner only."""

import contextlib
import os
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quarterdeck.kernel.errors import SetupProblem


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in `path` (32 raw bytes, mode 0600), made when missing; two makers get the same one.

    Raises SetupProblem (QD-SET-011) when the file is there and isn't such a key.
    """
    content = secret_file(path, Ed25519PrivateKey.generate().private_bytes_raw())
    try:
        return Ed25519PrivateKey.from_private_bytes(content)
    except ValueError:
        raise SetupProblem(
            f"{path} is not an Ed25519 key", code="QD-SET-011", hint="restore it from a backup"
        ) from None


def secret_file(path: Path, initial: bytes) -> bytes:
    """The content of `path`; `initial` is put there first, whole or not at all, if there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(initial)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its key is the one
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    return path.read_bytes()
