"""Identifiers and bus tokens: how they are formed and checked. Randomness comes from outside."""

import re
import uuid

from quarterdeck.kernel.errors import ContractViolation

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def uuid7(at_ms: int, random: bytes) -> str:
    """A UUIDv7 (RFC 9562, 5.7) from a time in ms since the epoch and 10 random bytes."""
    value = (at_ms & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_token(text: str) -> bool:
    """May stand as one token of a subject: 1 to 64 of letters, digits, `_`, `-`."""
    return _TOKEN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """A workspace, crew, agent or secret name: 1 to 63 of a-z, 0-9, `-`; neither first nor last is `-`."""
    return _NAME.fullmatch(text) is not None


def token(text: str, what: str) -> str:
    """`text` itself when it may stand in a subject, else ContractViolation naming `what`."""
    if not is_token(text):
        raise ContractViolation(
            f"{what} {text[:80]!r} can't stand in a subject", hint="1 to 64 of letters, digits, _ and -"
        )
    return text
