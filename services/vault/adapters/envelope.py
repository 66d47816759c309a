"""Envelope encryption: a random data key for each record, wrapped by a key of the ring; both AES-256-GCM.

The associated data of both is the canonical JSON of workspace, name, version and key version, so that a
record opens only in the place that it was sealed for.
"""

import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quarterdeck.kernel.digest import canonical
from services.vault.adapters.keyring import KeyRing
from services.vault.domain import Damage, Place

NONCE_BYTES = 12
"""Random, and never used again: a data key encrypts once, a ring key wraps far fewer than 2^32 of them."""
KEY_BITS = 256


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies in the store. Bytes are base64 in its JSON."""

    format: int
    key_version: int
    wrap_nonce: bytes
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


def seal(ring: KeyRing, place: Place, value: str) -> tuple[int, bytes]:
    """The key version used, and the record. The same value never gives the same record twice."""
    key_version, ring_key = ring.current()
    bound = _associated(place, key_version)
    data_key = AESGCM.generate_key(KEY_BITS)
    wrap_nonce, nonce = os.urandom(NONCE_BYTES), os.urandom(NONCE_BYTES)
    record = Record(
        format=1,
        key_version=key_version,
        wrap_nonce=wrap_nonce,
        wrapped_key=AESGCM(ring_key).encrypt(wrap_nonce, data_key, bound),
        nonce=nonce,
        ciphertext=AESGCM(data_key).encrypt(nonce, value.encode(), bound),
    )
    return key_version, msgspec.json.encode(record)


def unseal(ring: KeyRing, place: Place, content: bytes) -> str | Damage:
    """The value of a record that was sealed for this very place; Damage for anything else."""
    try:
        record = msgspec.json.decode(content, type=Record)
    except msgspec.DecodeError:
        return Damage("the record is not readable")
    if record.format != 1:
        return Damage(f"the record has format {record.format}, this version reads 1")
    ring_key = ring.key(record.key_version)
    if ring_key is None:
        return Damage(f"key {record.key_version} is not in the key ring")
    bound = _associated(place, record.key_version)
    try:
        data_key = AESGCM(ring_key).decrypt(record.wrap_nonce, record.wrapped_key, bound)
        return AESGCM(data_key).decrypt(record.nonce, record.ciphertext, bound).decode()
    except (InvalidTag, ValueError):  # ValueError: a nonce or key of a length that GCM does not take
        return Damage("the record was altered, or sealed for another secret or with another key")


def _associated(place: Place, key_version: int) -> bytes:
    return canonical(
        {
            "workspace": place.workspace,
            "name": place.name,
            "version": place.version,
            "key_version": key_version,
        }
    )
