"""Holds a stream's leaves against what was recorded and signed of them. Pure: no bus, no files.

What this can't see: an attacker who holds the signing key, the stream, the file of heads, their bucket and
the read model can write another history and sign it. Only a copy of a head elsewhere would tell.
"""

from collections.abc import Iterable, Sequence

import msgspec

from quarterdeck.contracts.journal import Finding, VerifyReply
from quarterdeck.kernel.errors import ContractViolation
from quarterdeck.kernel.merkle import EMPTY_ROOT, Frontier, leaf_hash
from quarterdeck.kernel.notes import Checkpoint, Verifier, read_checkpoint

MISSING = leaf_hash(b"")
"""Stands in the tree where nothing is stored, so that the places after it stay true."""
MAX_FINDINGS = 100
"""More are counted in one last finding."""


class Heads(msgspec.Struct, frozen=True, kw_only=True):
    """The signed heads, as notes, from both places where they are kept."""

    file: tuple[str, ...]
    """All of checkpoints.log, read last."""
    file_before: tuple[str, ...]
    """checkpoints.log read before the bucket: all but its last note stand in the bucket as well."""
    bucket: tuple[str, ...]


def audit(
    leaves: Sequence[bytes | None], recorded: Sequence[bytes] | None, heads: Heads, verifier: Verifier
) -> VerifyReply:
    """`leaves` as the stream has them now (None: nothing is stored there), index 0 for sequence 1; `recorded`
    as the read model had them when it first read them, perhaps fewer; None where there is no read model."""
    signed, findings = _open(heads, verifier)
    findings += _kept_twice(heads)
    checked = _Checked(leaves, signed)
    stream = [*_missing(leaves)]
    if recorded is not None:
        stream += _against_recorded(leaves, recorded, checked)
    stream += checked.findings(unless_before=min((f.sequence for f in stream), default=None))
    findings = [*sorted(stream, key=lambda f: f.sequence), *findings]
    if len(findings) > MAX_FINDINGS:
        more = len(findings) - MAX_FINDINGS
        last = Finding(kind="changed", sequence=findings[MAX_FINDINGS].sequence, message=f"and {more} more")
        findings = [*findings[:MAX_FINDINGS], last]
    return VerifyReply(
        ok=not findings,
        events=len(leaves),
        root=checked.root.hex(),
        checkpoints=len(heads.file),
        checkpointed_events=checked.covered,
        findings=tuple(findings),
    )


# -- heads ------------------------------------------------------------------------------------------------


def _open(heads: Heads, verifier: Verifier) -> tuple[list[Checkpoint], list[Finding]]:
    """The heads that this key signed, by size, and what is wrong with the others."""
    signed: dict[tuple[int, bytes], Checkpoint] = {}
    findings = []
    places = [(f"line {number} of checkpoints.log", note) for number, note in enumerate(heads.file, 1)]
    in_file = set(heads.file)
    places += [("an entry of the bucket CHECKPOINTS", note) for note in heads.bucket if note not in in_file]
    for place, note in places:
        try:
            head = read_checkpoint(verifier.open(note))
            if head.origin != verifier.name:
                raise ContractViolation(f"it is a head of {head.origin!r}, not of {verifier.name!r}")
        except ContractViolation as error:
            message = f"{place} is no head that this journal signed: {error.message}"
            findings.append(Finding(kind="checkpoint", sequence=_claimed_size(note), message=message))
            continue
        signed[head.size, head.root] = head
    return sorted(signed.values(), key=lambda head: head.size), findings


def _kept_twice(heads: Heads) -> Iterable[Finding]:
    """A note is put into the file, then into the bucket: only the file's last may be missing there."""
    in_file, in_bucket = set(heads.file), set(heads.bucket)
    for note in heads.bucket:
        if note not in in_file:
            size = _claimed_size(note)
            message = (
                f"the head over {size} events is in the bucket but not in checkpoints.log, which was cut"
            )
            yield Finding(kind="checkpoint", sequence=size, message=message)
    for note in heads.file_before[:-1]:
        if note not in in_bucket:
            size = _claimed_size(note)
            message = f"the head over {size} events is in checkpoints.log but not in the bucket CHECKPOINTS"
            yield Finding(kind="checkpoint", sequence=size, message=message)


def _claimed_size(note: str) -> int:
    """What a note says of its size, if it says anything: where to look, not what to believe."""
    line = note.split("\n")[1] if note.count("\n") > 1 else ""
    return int(line) if line.isascii() and line.isdigit() and len(line) < 19 else 0


class _Checked:
    """The stream's root at the size of each signed head."""

    def __init__(self, leaves: Sequence[bytes | None], signed: Sequence[Checkpoint]) -> None:
        self._total = len(leaves)
        self._beyond = [head for head in signed if head.size > len(leaves)]
        self._wrong: Checkpoint | None = None
        self._right_before = 0
        self.covered = 0
        """Events under the largest head that the stream agrees with."""
        wanted: dict[int, list[Checkpoint]] = {}
        for head in signed:
            wanted.setdefault(head.size, []).append(head)
        frontier = Frontier()
        self._compare(wanted.get(0, []), EMPTY_ROOT)
        for leaf in leaves:
            frontier = frontier.append(leaf or MISSING)
            if heads := wanted.get(frontier.size):
                self._compare(heads, frontier.root())
        self.root = frontier.root()

    def _compare(self, heads: Sequence[Checkpoint], root: bytes) -> None:
        for head in heads:
            if head.root == root:
                self.covered = head.size
            elif self._wrong is None:
                self._wrong, self._right_before = head, self.covered

    def findings(self, unless_before: int | None) -> Iterable[Finding]:
        """`unless_before`: what stands at that sequence already explains the heads from there on."""
        if self._wrong is not None and not (unless_before and unless_before <= self._wrong.size):
            yield self._contradicted(self._wrong)
        if self._beyond and not (unless_before and unless_before <= self._total + 1):
            last = self._beyond[-1].size
            message = (
                f"the stream ends at {self._total}, but a head over {last} events was signed: "
                f"{_events(self._total + 1, last)} {_are(self._total + 1, last)} gone"
            )
            yield Finding(kind="truncated", sequence=self._total + 1, message=message)

    def _contradicted(self, head: Checkpoint) -> Finding:
        first, last = self._right_before + 1, head.size
        if self.covered >= last:
            message = (
                f"two histories were signed: a head over {last} events contradicts the others and the stream"
            )
            return Finding(kind="checkpoint", sequence=last, message=message)
        message = (
            f"{_events(first, last)} {_are(first, last)} not what was signed: the root over {last} events "
            "differs from its signed head, so something there was changed, dropped or inserted"
        )
        return Finding(kind="changed", sequence=first, message=message)


# -- leaves -----------------------------------------------------------------------------------------------


def _missing(leaves: Sequence[bytes | None]) -> Iterable[Finding]:
    for first, last in _runs(at for at, leaf in enumerate(leaves) if leaf is None):
        message = f"nothing is stored at {_events(first + 1, last + 1)} of the stream any more"
        yield Finding(kind="dropped", sequence=first + 1, message=message)


def _against_recorded(
    leaves: Sequence[bytes | None], recorded: Sequence[bytes], checked: _Checked
) -> Iterable[Finding]:
    """Both lists aligned: where they part, what comes later tells dropped, inserted and changed apart."""
    in_stream = {leaf: at for at, leaf in enumerate(leaves)}
    in_record = {leaf: at for at, leaf in enumerate(recorded)}
    here = there = 0
    changed: list[int] = []
    while here < len(leaves) and there < len(recorded):
        leaf, was = leaves[here], recorded[there]
        if leaf == was or leaf is None:
            here, there = here + 1, there + 1
        elif leaf is not None and in_record.get(leaf, -1) > there:
            yield _gone(there, in_record[leaf] - 1)
            there = in_record[leaf]
        elif in_stream.get(was, -1) > here:
            first, last = here + 1, in_stream[was]
            message = (
                f"{_events(first, last)} {_are(first, last)} in the stream, but the journal never read that"
            )
            yield Finding(kind="inserted", sequence=first, message=message)
            here = in_stream[was]
        else:
            changed.append(here)
            here, there = here + 1, there + 1
    for first, last in _runs(changed):
        yield _changed(first, last, checked)
    if there < len(recorded):
        message = (
            f"the stream ends at {len(leaves)}, but the journal has read {len(recorded)} events: "
            f"{_events(there + 1, len(recorded))} {_are(there + 1, len(recorded))} gone"
        )
        yield Finding(kind="truncated", sequence=there + 1, message=message)


def _gone(first: int, last: int) -> Finding:
    message = (
        f"{_events(first + 1, last + 1)} {_are(first, last)} gone from the stream: the journal had read it"
    )
    return Finding(kind="dropped", sequence=first + 1, message=message)


def _changed(first: int, last: int, checked: _Checked) -> Finding:
    what = f"{_events(first + 1, last + 1)} {_are(first, last)} not what the journal read"
    if last < checked.covered:
        message = what + "; the signed heads agree with the stream, so it is the read model that was altered"
    else:
        message = what + ": the stream was altered"
    return Finding(kind="changed", sequence=first + 1, message=message)


def _runs(places: Iterable[int]) -> Iterable[tuple[int, int]]:
    """`1 2 3 7` as (1, 3) and (7, 7)."""
    run: tuple[int, int] | None = None
    for place in places:
        if run is not None and place == run[1] + 1:
            run = (run[0], place)
            continue
        if run is not None:
            yield run
        run = (place, place)
    if run is not None:
        yield run


def _events(first: int, last: int) -> str:
    return f"event {first}" if first == last else f"events {first} to {last}"


def _are(first: int, last: int) -> str:
    return "is" if first == last else "are"
