"""Digests that two parties can agree on: SHA-256 over RFC 8785 canonical JSON."""

import hashlib
from typing import Any

import rfc8785

from quarterdeck.kernel.errors import ContractViolation


def sha256(content: bytes) -> str:
    """Lower-case hex SHA-256."""
    return hashlib.sha256(content).hexdigest()


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON. Raises ContractViolation for what JSON can't carry exactly (NaN, big ints)."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise ContractViolation(f"not representable as canonical JSON: {error}") from None


def digest(value: Any) -> str:
    """SHA-256 of the canonical form: the same arguments give the same digest in any language."""
    return sha256(canonical(value))
