"""The audit, on leaves alone."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.client.audit import MISSING, Heads, audit
from quarterdeck.eventlog.stored import Stored
from quarterdeck.kernel.merkle import leaf_hash, root
from quarterdeck.kernel.notes import Checkpoint, Signer

SIGNER = Signer("quarterdeck/journal", b"\1" * 32)
LEAVES = [leaf_hash(bytes([n])) for n in range(24)]


def note(leaves: Sequence[bytes], signer: Signer = SIGNER) -> str:
    return signer.sign(Checkpoint("quarterdeck/journal", len(leaves), root(leaves)).text())


def heads(sizes: Sequence[int]) -> Heads:
    notes = tuple(note(LEAVES[:size]) for size in sorted(set(sizes)))
    return Heads(file=notes, file_before=notes, bucket=notes)


@st.composite
def attacks(draw: st.DrawFn) -> list[bytes | None]:
    """What becomes of the 24 leaves: one is changed, dropped, lost, doubled or moved, or the tail is cut."""
    leaves: list[bytes | None] = list(LEAVES)
    at = draw(st.integers(0, 19))
    match draw(st.sampled_from(["change", "drop", "lose", "double", "move", "cut", "empty"])):
        case "change":
            leaves[at] = leaf_hash(b"forged")
        case "drop":
            del leaves[at]
        case "lose":
            leaves[at] = None
        case "double":
            leaves.insert(at, leaves[at])
        case "move":
            leaves.insert(at, leaves.pop(23))
        case "cut":
            del leaves[at:]
        case "empty":
            leaves.clear()
    return leaves


@given(st.lists(st.integers(1, 24), min_size=1))
def test_what_was_not_altered_is_ok(sizes: list[int]) -> None:
    """Right leaves under right heads have no finding, also while the journal is still reading."""
    for recorded in (None, LEAVES, LEAVES[:7], []):
        reply = audit(LEAVES, recorded, heads(sizes), SIGNER.verifier)
        assert reply.ok, reply.findings
        assert (reply.events, reply.root) == (24, root(LEAVES).hex())
        assert reply.checkpointed_events == max(sizes)


@given(attacks(), st.lists(st.integers(1, 24)))
def test_no_attack_on_signed_events_passes(altered: list[bytes | None], sizes: list[int]) -> None:
    """Where a head covers what was altered, the heads alone find it."""
    reply = audit(altered, None, heads([*sizes, 24]), SIGNER.verifier)
    assert not reply.ok
    assert reply.findings[0].kind in ("changed", "dropped", "truncated")
    assert 1 <= reply.findings[0].sequence <= len(altered) + 1


@given(attacks())
def test_no_attack_on_read_events_passes(altered: list[bytes | None]) -> None:
    """What the read model has recorded is enough to find it without any head."""
    reply = audit(altered, LEAVES, heads([]), SIGNER.verifier)
    assert not reply.ok


def test_the_finding_names_the_event() -> None:
    """Changed, dropped, inserted and truncated are told apart, each with its place."""

    def found(altered: list[bytes | None]) -> list[tuple[str, int]]:
        reply = audit(altered, LEAVES, heads([24]), SIGNER.verifier)
        return [(finding.kind, finding.sequence) for finding in reply.findings]

    new = leaf_hash(b"new")
    assert found([*LEAVES[:4], new, *LEAVES[5:]]) == [("changed", 5)]
    assert found([*LEAVES[:4], new, new, *LEAVES[6:]]) == [("changed", 5)]
    assert found([*LEAVES[:4], *LEAVES[6:]]) == [("dropped", 5)]
    assert found([*LEAVES[:4], new, *LEAVES[4:]]) == [("inserted", 5)]
    assert found([*LEAVES[:4]]) == [("truncated", 5)]
    assert found([*LEAVES[:4], None, *LEAVES[5:]]) == [("dropped", 5)]
    assert found([*LEAVES[:4], *LEAVES[5:9], new, *LEAVES[10:20]]) == [
        ("dropped", 5), ("changed", 9), ("truncated", 21),
    ]  # fmt: skip


def test_two_signed_histories_are_found() -> None:
    """A head of another history with the right signature contradicts the stream, though later heads agree."""
    fork = note([leaf_hash(b"other"), *LEAVES[1:5]])
    notes = (note(LEAVES[:3]), fork, note(LEAVES[:9]))
    reply = audit(LEAVES, LEAVES, Heads(file=notes, file_before=notes, bucket=notes), SIGNER.verifier)
    assert [(finding.kind, finding.sequence) for finding in reply.findings] == [("checkpoint", 5)]


def test_a_head_of_another_log_is_found() -> None:
    """A note that the key signed for another origin is no head of this log."""
    other = SIGNER.sign(Checkpoint("quarterdeck/other", 3, root(LEAVES[:3])).text())
    reply = audit(LEAVES, None, Heads(file=(other,), file_before=(), bucket=(other,)), SIGNER.verifier)
    assert [finding.kind for finding in reply.findings] == ["checkpoint"]
    assert reply.checkpointed_events == 0


def test_findings_are_bounded() -> None:
    """A stream of nothing but forgeries answers with a hundred findings and a count."""
    lost: list[bytes | None] = [leaf if at % 2 else None for at, leaf in enumerate(LEAVES * 20)]
    reply = audit(lost, None, heads([]), SIGNER.verifier)
    assert len(reply.findings) == 101
    assert reply.findings[-1].message == "and 140 more"


HEADERS = {"ce-id": "1", "ce-actor": "user:ada"}


def test_a_leaf_covers_all_that_was_written_and_nothing_of_the_delivery() -> None:
    """Subject, every header and body make the leaf; the server's own headers and the sequence don't."""
    stored = Stored(sequence=1, subject="evt.a.b.c.d", headers=HEADERS, body=b"{}")
    same = Stored(
        sequence=9, subject="evt.a.b.c.d", body=b"{}",
        headers={"Nats-Sequence": "9", "ce-actor": "user:ada", "ce-id": "1", "Nats-Msg-Id": "x"},
    )  # fmt: skip
    assert stored.leaf() == same.leaf()
    others = [
        Stored(sequence=1, subject="evt.a.b.c.e", headers=HEADERS, body=b"{}"),
        Stored(sequence=1, subject="evt.a.b.c.d", headers={**HEADERS, "ce-id": "2"}, body=b"{}"),
        Stored(sequence=1, subject="evt.a.b.c.d", headers={**HEADERS, "more": ""}, body=b"{}"),
        Stored(sequence=1, subject="evt.a.b.c.d", headers=HEADERS, body=b"{ }"),
        Stored(sequence=1, subject="evt.a.b.c.d", headers={"ce-id": "1ce-actor", "user": "ada"}, body=b"{}"),
        Stored(sequence=1),
    ]
    assert len({stored.leaf(), *(other.leaf() for other in others)}) == 7
    assert Stored(sequence=1).leaf() == MISSING
