"""Signed tree heads in the formats of c2sp.org: signed-note, and tlog-checkpoint as its text.

A checkpoint is three lines (origin, number of leaves, base64 of the root), an empty line, and signature lines
`— <key name> <base64 of key id and signature>`. Keys are written as the Go note package writes them.
"""

import base64
import binascii
import hashlib

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from quarterdeck.kernel.errors import ContractViolation
from quarterdeck.kernel.merkle import HASH_BYTES

ED25519 = b"\x01"
KEY_BYTES = 32
KEY_ID_BYTES = 4
NOTE_BYTES = 64 << 10
"""A longer note is refused unread."""
_DASH = "— "


class Checkpoint(msgspec.Struct, frozen=True):
    """A tree head: the root over the first `size` leaves of the log named `origin`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


class Signer:
    """An Ed25519 key with a name. Signing is deterministic: the same text gives the same note."""

    def __init__(self, name: str, seed: bytes) -> None:
        _check_name(name)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._seed = seed
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> "Signer":
        """From `PRIVATE+KEY+<name>+<key id>+<base64>`. Raises ContractViolation, which never quotes it."""
        parts = text.strip().split("+", 4)
        if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
            raise ContractViolation("this is not a note's signing key")
        signer = cls(parts[2], _key_bytes(parts[4]))
        if signer.verifier.key_id.hex() != parts[3]:
            raise ContractViolation("the signing key is not the one that its key id names")
        return signer

    def encode(self) -> str:
        verifier = self.verifier
        key = base64.b64encode(ED25519 + self._seed).decode()
        return f"PRIVATE+KEY+{verifier.name}+{verifier.key_id.hex()}+{key}"

    def sign(self, text: str) -> str:
        """The note: `text`, which ends in a newline, and one signature."""
        assert text.endswith("\n"), text
        signature = base64.b64encode(self.verifier.key_id + self._key.sign(text.encode())).decode()
        return f"{text}\n{_DASH}{self.verifier.name} {signature}\n"


class Verifier:
    """The public half. Its text form, `<name>+<key id>+<base64>`, is what an auditor is given."""

    def __init__(self, name: str, public: bytes) -> None:
        _check_name(name)
        self.name = name
        self._public = public
        self._key = Ed25519PublicKey.from_public_bytes(public)
        self.key_id = hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:KEY_ID_BYTES]

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Raises ContractViolation."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise ContractViolation("this is not a note's verification key")
        verifier = cls(parts[0], _key_bytes(parts[2]))
        if verifier.key_id.hex() != parts[1]:
            raise ContractViolation("the verification key is not the one that its key id names")
        return verifier

    def encode(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(ED25519 + self._public).decode()}"

    def open(self, note: str) -> str:
        """The text that this key signed. Signatures of other keys are ignored, as the format wants it.

        Raises ContractViolation when the note is malformed or no signature of this key on it is valid.
        """
        if len(note) > NOTE_BYTES:
            raise ContractViolation(f"a note of {len(note):,} characters is too long")
        text, gap, signatures = note.rpartition("\n\n")
        if not gap or not signatures.endswith("\n") or not text:
            raise ContractViolation("not a signed note: text, an empty line, signature lines")
        text += "\n"
        for line in signatures[:-1].split("\n"):
            if self._signed(line, text):
                return text
        raise ContractViolation(f"no valid signature of {self.name}+{self.key_id.hex()}")

    def _signed(self, line: str, text: str) -> bool:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not name:
            raise ContractViolation("not a signed note: a line after the text is no signature")
        blob = _decode(encoded)
        if name != self.name or blob[:KEY_ID_BYTES] != self.key_id:
            return False
        try:
            self._key.verify(blob[KEY_ID_BYTES:], text.encode())
        except InvalidSignature:
            return False
        return True


def read_checkpoint(text: str) -> Checkpoint:
    """The text of a note as a tree head; extension lines are ignored. Raises ContractViolation."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise ContractViolation("a checkpoint has an origin, a size and a root, one a line")
    origin, size, root = lines[0], lines[1], _decode(lines[2])
    if not size.isascii() or not size.isdigit() or str(int(size[:20])) != size or len(root) != HASH_BYTES:
        raise ContractViolation("a checkpoint's size is a number without leading zeros, its root 32 bytes")
    return Checkpoint(origin, int(size), root)


def _decode(text: str) -> bytes:
    """Canonical base64 only: two spellings of one signature would be two notes."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ContractViolation("not base64") from None
    if base64.b64encode(blob).decode() != text:
        raise ContractViolation("not canonical base64")
    return blob


def _key_bytes(text: str) -> bytes:
    blob = _decode(text)
    if len(blob) != 1 + KEY_BYTES or blob[:1] != ED25519:
        raise ContractViolation("not an Ed25519 key of a note")
    return blob[1:]


def _check_name(name: str) -> None:
    if not name or "+" in name or any(c.isspace() for c in name):
        raise ContractViolation(f"{name!r} can't name a note's key: it is empty or has a space or a plus")
