"""The key ring and the envelope: what opens, where, and what never does."""

import asyncio
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarterdeck.kernel.errors import SetupProblem
from services.vault.adapters.envelope import Record, seal, unseal
from services.vault.adapters.keyring import KeyRing, Ring
from services.vault.domain import Damage, Place

PLACE = Place("acme", "webhook", 1)
VALUE = "hunter2-hunter2-hunter2"


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys" / "vault.keyring")


class TestRing:
    def test_made_once_for_its_owner(self, tmp_path: Path) -> None:
        """The ring is made with one random key, mode 0600, and read the same after a restart."""
        path = tmp_path / "keys" / "vault.keyring"
        first = KeyRing(path).current()
        assert KeyRing(path).current() == first
        assert KeyRing(tmp_path / "other").current()[1] != first[1]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(path.parent.iterdir()) == [path]

    def test_rotation(self, ring: KeyRing, tmp_path: Path) -> None:
        """After a rotation the new key encrypts, the old one still decrypts, and other processes see both."""
        other = KeyRing(tmp_path / "keys" / "vault.keyring")
        old_version, old_record = seal(ring, PLACE, VALUE)
        assert ring.rotate() == 2
        new_version, new_record = seal(other, PLACE, VALUE)
        assert (old_version, new_version) == (1, 2)
        for reader in (ring, other):
            assert unseal(reader, PLACE, old_record) == VALUE
            assert unseal(reader, PLACE, new_record) == VALUE
        path = tmp_path / "keys" / "vault.keyring"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(path.parent.iterdir()) == [path]

    async def test_rotations_at_once_lose_no_key(self, ring: KeyRing, tmp_path: Path) -> None:
        """Eight rotations at once, each through its own ring, give eight new keys."""
        rings = [KeyRing(tmp_path / "keys" / "vault.keyring") for _ in range(8)]
        versions = await asyncio.gather(*(asyncio.to_thread(each.rotate) for each in rings))
        assert sorted(versions) == list(range(2, 10))
        assert ring.current()[0] == 9
        assert len({ring.key(version) for version in range(1, 10)}) == 9

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{}",
            b"[]",
            msgspec.json.encode(Ring(current=2, keys={1: b"k" * 32})),
            msgspec.json.encode(Ring(current=1, keys={1: b"short"})),
        ],
    )
    def test_a_damaged_ring_stops_the_start(self, tmp_path: Path, content: bytes) -> None:
        """QD-VLT-020: a ring that can't be read, lacks its current key, or holds no key is not used."""
        path = tmp_path / "ring"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(SetupProblem, match="QD-VLT-020"):
            KeyRing(path)

    def test_a_ring_that_others_can_read_stops_the_start(self, tmp_path: Path) -> None:
        """QD-VLT-020: a ring readable by others is refused, with the command that mends it."""
        path = tmp_path / "ring"
        KeyRing(path)
        path.chmod(0o640)
        with pytest.raises(SetupProblem, match="chmod 600"):
            KeyRing(path)

    def test_no_key_shows_in_a_repr(self) -> None:
        """INV-23: a ring shows its versions, not its keys."""
        assert repr(Ring(current=1, keys={1: b"k" * 32})) == "Ring(current=1, versions=[1])"


class TestEnvelope:
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(value=st.text(min_size=1, max_size=2_000))
    def test_what_is_sealed_opens(self, ring: KeyRing, value: str) -> None:
        """Any text opens to itself in its own place, and its record doesn't hold it."""
        _, record = seal(ring, PLACE, value)
        assert unseal(ring, PLACE, record) == value
        assert len(value) < 4 or value.encode() not in record

    def test_the_same_value_is_never_the_same_record(self, ring: KeyRing) -> None:
        """Two puts of one value can't be told to be the same from their records."""
        assert seal(ring, PLACE, VALUE) != seal(ring, PLACE, VALUE)

    @pytest.mark.parametrize(
        "place",
        [Place("acme", "webhook", 2), Place("acme", "other", 1), Place("other", "webhook", 1)],
    )
    def test_a_record_opens_in_its_place_only(self, ring: KeyRing, place: Place) -> None:
        """A record moved to another version, name or workspace does not open there."""
        _, record = seal(ring, PLACE, VALUE)
        assert isinstance(unseal(ring, place, record), Damage)

    def test_one_flipped_bit_is_damage(self, ring: KeyRing) -> None:
        """Whichever bit of key, nonces or ciphertext is flipped, the record does not open."""
        _, content = seal(ring, PLACE, "short")
        record = msgspec.json.decode(content, type=Record)
        for field in ("wrap_nonce", "wrapped_key", "nonce", "ciphertext"):
            sound: bytes = getattr(record, field)
            for bit in range(len(sound) * 8):
                bent = bytearray(sound)
                bent[bit // 8] ^= 1 << bit % 8
                altered = msgspec.structs.replace(record, **{field: bytes(bent)})
                assert isinstance(unseal(ring, PLACE, msgspec.json.encode(altered)), Damage), (field, bit)

    def test_a_key_version_can_not_be_exchanged(self, ring: KeyRing) -> None:
        """A record that names another key of the ring than the one it was sealed with does not open."""
        _, content = seal(ring, PLACE, VALUE)
        ring.rotate()
        record = msgspec.json.decode(content, type=Record)
        altered = msgspec.structs.replace(record, key_version=2)
        assert isinstance(unseal(ring, PLACE, msgspec.json.encode(altered)), Damage)

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            ({"key_version": 9}, "key 9 is not in the key ring"),
            ({"format": 2}, "format 2"),
            ({"nonce": b""}, "altered"),
            ({"wrapped_key": b""}, "altered"),
        ],
    )
    def test_damage_says_what_is_wrong(self, ring: KeyRing, changed: dict[str, object], why: str) -> None:
        """A record of an unknown key or format, or with parts missing, is damage with its reason."""
        record = msgspec.json.decode(seal(ring, PLACE, VALUE)[1], type=Record)
        content = msgspec.json.encode(msgspec.structs.replace(record, **changed))
        damage = unseal(ring, PLACE, content)
        assert isinstance(damage, Damage)
        assert why in damage.message
        assert VALUE not in damage.message

    @pytest.mark.parametrize("content", [b"", b"null", b"{", b"\xff\xfe"])
    def test_nonsense_is_damage(self, ring: KeyRing, content: bytes) -> None:
        """Anything else that may lie in the store is damage, not an error."""
        assert isinstance(unseal(ring, PLACE, content), Damage)
