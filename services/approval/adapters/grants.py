"""Grants as text: `qdg1.<canonical JSON of the claims>.<Ed25519 signature>`, both parts base64url."""

import base64
import binascii
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature

from quarterdeck.chassis.keys import signing_key
from quarterdeck.kernel.digest import canonical
from services.approval.domain import Claims

PREFIX = "qdg1"
MAX_CHARS = 4_096


class GrantSeal:
    """Signs with the key in `path`, which is made, for its owner's eyes only, if missing."""

    def __init__(self, path: Path) -> None:
        self._key = signing_key(path)

    def sign(self, claims: Claims) -> str:
        payload = canonical(msgspec.to_builtins(claims))
        return f"{PREFIX}.{_encode(payload)}.{_encode(self._key.sign(_signed(payload)))}"

    def read(self, grant: str) -> Claims | None:
        if len(grant) > MAX_CHARS:
            return None
        try:
            _, payload_text, signature_text = grant.split(".")
            payload, signature = _decode(payload_text), _decode(signature_text)
            self._key.public_key().verify(signature, _signed(payload))
            claims = msgspec.json.decode(payload, type=Claims)
        except (ValueError, binascii.Error, InvalidSignature, msgspec.DecodeError):
            return None
        # Base64 has spare bits at its end: only the one spelling that we wrote counts.
        return claims if grant == self.sign(claims) else None


def _signed(payload: bytes) -> bytes:
    """The prefix is under the signature, so that no other kind of text can be passed off as a grant."""
    return PREFIX.encode() + b"." + payload


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
