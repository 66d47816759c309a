"""Signed notes and checkpoints against the formats' own examples."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kernel.errors import ContractViolation
from quarterdeck.kernel.merkle import EMPTY_ROOT
from quarterdeck.kernel.notes import Checkpoint, Signer, Verifier, read_checkpoint

# The example of the Go note package, which defined the format.
SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ryy"
    "BwJnAM=\n"
)
HEAD = Checkpoint("quarterdeck/test", 5, EMPTY_ROOT)


def test_the_published_note_opens_and_is_signed_again() -> None:
    """The reference key gives the reference note, byte for byte, and opens it."""
    assert Verifier.parse(VERIFIER).open(NOTE) == TEXT
    assert Signer.parse(SIGNER).sign(TEXT) == NOTE
    assert Signer.parse(SIGNER).encode() == SIGNER
    assert Signer.parse(SIGNER).verifier.encode() == VERIFIER


def test_the_example_checkpoint_of_the_specification_is_read() -> None:
    """The example of tlog-checkpoint has its origin, size and root."""
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    head = read_checkpoint(text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.root.hex().startswith("0ac5186a91863e8e")
    assert head.text() == text


def test_other_signatures_are_ignored() -> None:
    """A witness may add its own signature line."""
    ours, witness = Signer("quarterdeck/test", b"\1" * 32), Signer("witness", b"\2" * 32)
    note = ours.sign(HEAD.text())
    cosigned = note + witness.sign(HEAD.text()).removeprefix(HEAD.text() + "\n")
    assert read_checkpoint(ours.verifier.open(cosigned)) == HEAD
    assert read_checkpoint(witness.verifier.open(cosigned)) == HEAD


@given(st.integers(0, 200), st.integers(1, 255))
def test_no_byte_of_a_note_can_be_changed(place: int, flip: int) -> None:
    """Whatever is altered in text or signature, the note doesn't open as another head."""
    signer = Signer("quarterdeck/test", b"\1" * 32)
    raw = bytearray(signer.sign(HEAD.text()).encode())
    raw[place % len(raw)] ^= flip
    with pytest.raises(ContractViolation):
        signer.verifier.open(raw.decode(errors="replace"))


def test_another_key_of_the_same_name_does_not_open_it() -> None:
    """A key swap under the old name is seen."""
    note = Signer("quarterdeck/test", b"\1" * 32).sign(HEAD.text())
    with pytest.raises(ContractViolation, match="no valid signature"):
        Signer("quarterdeck/test", b"\2" * 32).verifier.open(note)


@pytest.mark.parametrize(
    "note",
    ["", "\n", "text\n", "text\n\nno signature\n", "text\n\n— name\n", "text\n\n— quarterdeck/test !!!\n",
     "text\n\n— quarterdeck/test AAAA", "x" * 70_000],
)  # fmt: skip
def test_what_is_no_note_is_refused(note: str) -> None:
    """Malformed notes raise ContractViolation and nothing else."""
    with pytest.raises(ContractViolation):
        Signer("quarterdeck/test", b"\1" * 32).verifier.open(note)


ROOT = base64.b64encode(EMPTY_ROOT).decode()


@pytest.mark.parametrize(
    "text",
    ["", "o\n5\n", f"o\n05\n{ROOT}\n", f"o\n-5\n{ROOT}\n", f"o\n\u0665\n{ROOT}\n", f"\n5\n{ROOT}\n",
     "o\n5\nAAAA\n", f"o\n5\n{ROOT}", f"o\n{'9' * 30}\n{ROOT}\n"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """A head is read strictly: no leading zeros, no other digits, a root of 32 bytes."""
    with pytest.raises(ContractViolation):
        read_checkpoint(text)


@pytest.mark.parametrize(
    "key", ["", "a+b", "PRIVATE+KEY+a+00000000+AA==", SIGNER.replace("c74f20a3", "00000000")]
)
def test_what_is_no_key_is_refused(key: str) -> None:
    """A damaged signing key is refused by name of the fault, and the message doesn't quote it."""
    with pytest.raises(ContractViolation) as caught:
        Signer.parse(key)
    assert "AYEKFALVFGy" not in str(caught.value)
    with pytest.raises(ContractViolation):
        Verifier.parse(key)


def test_a_name_that_would_break_the_line_is_refused() -> None:
    """Spaces, newlines and plus signs can't stand in a key's name."""
    for name in ("", "a b", "a\nb", "a+b"):
        with pytest.raises(ContractViolation):
            Signer(name, b"\1" * 32)
