"""Grants as text: sealed by one key, readable only as written."""

import stat
from pathlib import Path

import pytest

from quarterdeck.kernel.errors import SetupProblem
from services.approval.adapters.grants import GrantSeal
from services.approval.domain import Claims

CLAIMS = Claims(
    workspace="acme",
    approval_id="a1",
    mission_id="m1",
    tool="publish",
    arguments_sha256="0" * 64,
    policy_version=3,
    approver="user:ada",
    expires_at_ms=1_000,
)


def test_what_is_sealed_is_read(tmp_path: Path) -> None:
    """A grant reads as the claims it was made of, and the same claims give the same text after a restart."""
    path = tmp_path / "keys" / "approval.ed25519"
    grant = GrantSeal(path).sign(CLAIMS)
    again = GrantSeal(path)
    assert again.read(grant) == CLAIMS
    assert again.sign(CLAIMS) == grant


def test_the_key_is_its_owners(tmp_path: Path) -> None:
    """The key is made once, for its owner's eyes only."""
    path = tmp_path / "keys" / "approval.ed25519"
    GrantSeal(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_one_flipped_bit_is_no_grant(tmp_path: Path) -> None:
    """Whichever bit of the text is flipped, it is not read: the spare bits of base64 included."""
    seal = GrantSeal(tmp_path / "key")
    grant = seal.sign(CLAIMS).encode()
    for place in range(len(grant)):
        for bit in range(8):
            bent = bytearray(grant)
            bent[place] ^= 1 << bit
            assert seal.read(bent.decode("latin-1")) is None, (place, bit)


@pytest.mark.parametrize("text", ["", "qdg1", "qdg1..", "a.b.c.d", "ä.ö.ü", "qdg1." + "A" * 5_000 + ".A"])
def test_nonsense_is_no_grant(tmp_path: Path, text: str) -> None:
    """Anything else that may be shown is refused without an error."""
    assert GrantSeal(tmp_path / "key").read(text) is None


def test_another_keys_grant_is_none_of_ours(tmp_path: Path) -> None:
    """A grant sealed with another key is not read."""
    assert GrantSeal(tmp_path / "a").read(GrantSeal(tmp_path / "b").sign(CLAIMS)) is None


def test_a_broken_key_is_said(tmp_path: Path) -> None:
    """A key file that is no key stops the start with what to do."""
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(SetupProblem, match="QD-SET-011"):
        GrantSeal(tmp_path / "key")
