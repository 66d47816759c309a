"""The journal's signing key: made once, readable by the owner only."""

import os
from pathlib import Path

from quarterdeck.kernel.errors import ContractViolation, SetupProblem
from quarterdeck.kernel.notes import KEY_BYTES, Signer

KEY = "journal.ed25519"
PUBLIC = "journal.vkey"


def signer(keys_dir: Path, origin: str, *, may_make: bool) -> Signer:
    """The key in `keys_dir`, made if there is none and `may_make`; its public half is written beside it.

    Raises SetupProblem: QD-JRN-006 when it is gone though it has signed before, QD-JRN-007 when it is not a
    key for `origin`.
    """
    path = keys_dir / KEY
    if not path.exists():
        if not may_make:
            raise SetupProblem(
                f"the journal's key {path} is gone, but there are heads that it signed",
                code="QD-JRN-006",
                hint="restore the key; or, to begin anew, move checkpoints.log away and delete the bucket",
            )
        keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, Signer(origin, os.urandom(KEY_BYTES)).encode())
    try:
        found = Signer.parse(path.read_text())
    except (ContractViolation, UnicodeDecodeError) as error:
        raise SetupProblem(f"{path} is damaged: {error}", code="QD-JRN-007") from None
    if found.verifier.name != origin:
        raise SetupProblem(
            f"{path} is the key of {found.verifier.name!r}, not of {origin!r}",
            code="QD-JRN-007",
            hint="set QUARTERDECK_JOURNAL_ORIGIN to the name that the key was made for",
        )
    public = keys_dir / PUBLIC
    if not public.exists():
        _write(public, found.verifier.encode())
    return found


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a key that was half written would look like a damaged one."""
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
