"""Mission tokens: short-lived, signed, naming one run. `qdm1.<payload>.<Ed25519 signature>`, base64url."""

import base64
import binascii
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature

from quarterdeck.chassis.keys import signing_key
from quarterdeck.kernel.errors import Rejected
from services.mission.ports import Claims

PREFIX = "qdm1"


class SignedTokens:
    """Signs and reads tokens with the key in `path`, which is made, for its owner's eyes only, if missing."""

    def __init__(self, path: Path) -> None:
        self._key = signing_key(path)

    def sign(self, claims: Claims) -> str:
        payload = msgspec.json.encode(claims)
        return ".".join((PREFIX, _encode(payload), _encode(self._key.sign(payload))))

    def read(self, token: str, now_ms: int) -> Claims | Rejected:
        """The claims of a token that we signed and that has not expired."""
        try:
            prefix, payload, signature = token.split(".")
            content = _decode(payload)
            self._key.public_key().verify(_decode(signature), content)
            claims = msgspec.json.decode(content, type=Claims)
        except (ValueError, binascii.Error, InvalidSignature, msgspec.DecodeError):
            return _dead("QD-MIS-020", "bad_token", "this is not a mission token of this Quarterdeck")
        if prefix != PREFIX:
            return _dead("QD-MIS-020", "bad_token", "this is not a mission token of this Quarterdeck")
        if claims.expires_at_ms <= now_ms:
            return _dead("QD-MIS-021", "token_expired", "the mission token has expired")
        return claims


def _dead(code: str, reason: str, message: str) -> Rejected:
    hint = "a token is good for one run; a new run gets its own"
    return Rejected(code=code, reason=reason, message=message, hint=hint)


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Raises ValueError for anything but the one spelling that `_encode` gives: spare bits are no freedom."""
    content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(content) != text:
        raise ValueError("not the canonical base64url spelling")
    return content
