"""Merkle trees as in RFC 9162, section 2.1 (the same hashing as RFC 6962), over SHA-256.

A tree is a list of leaf hashes; index 0 is the first leaf. Hashes are 32 bytes. Nothing here raises for a
proof that doesn't hold: verification answers False. Wrong indices are a caller's bug and fail an assertion.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Of an entry's bytes. The prefix keeps a leaf from passing as a node (RFC 9162, 2.1.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Frontier(msgspec.Struct, frozen=True):
    """The least that must be kept to append: one hash for each complete subtree, the largest first.

    At `size` leaves there are as many hashes as `size` has one-bits, at most 63. Appending costs one hash on
    average, the root as many as there are subtrees.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> "Frontier":
        """With one more leaf hash at the end."""
        hashes = list(self.hashes)
        # A trailing one-bit of the size is a subtree as large as what we carry: the two become one.
        bits = self.size
        while bits & 1:
            leaf = node_hash(hashes.pop(), leaf)
            bits >>= 1
        return Frontier(self.size + 1, (*hashes, leaf))

    def root(self) -> bytes:
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


def frontier(leaves: Sequence[bytes]) -> Frontier:
    """Of leaf hashes, in order."""
    grown = Frontier()
    for leaf in leaves:
        grown = grown.append(leaf)
    return grown


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree head: MTH of RFC 9162, 2.1.1, over leaf hashes."""
    return frontier(leaves).root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """PATH(index, leaves) of RFC 9162, 2.1.3.1: the siblings from the leaf up to the root."""
    assert 0 <= index < len(leaves), (index, len(leaves))
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*inclusion_proof(leaves[:split], index), root(leaves[split:]))
    return (*inclusion_proof(leaves[split:], index - split), root(leaves[:split]))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], head: bytes) -> bool:
    """Is `leaf` the leaf at `index` of the tree of `size` leaves with root `head`? RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return False
    place, last, built = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            built = node_hash(sibling, built)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            built = node_hash(built, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and built == head


def consistency_proof(leaves: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """PROOF(first, leaves) of RFC 9162, 2.1.4.1: that the tree of `first` leaves is a prefix of this one."""
    assert 0 < first <= len(leaves), (first, len(leaves))
    return _subproof(leaves, first, whole=True)


def verify_consistency(
    first: int, second: int, proof: Sequence[bytes], first_head: bytes, second_head: bytes
) -> bool:
    """Does the tree of `second` leaves extend the tree of `first`? RFC 9162, 2.1.4.2; `first` at least 1."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and first_head == second_head
    path = list(proof) if first & (first - 1) else [first_head, *proof]
    if not path:
        return False
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and old == first_head and new == second_head


def _subproof(leaves: Sequence[bytes], first: int, *, whole: bool) -> tuple[bytes, ...]:
    """`whole`: the prefix is a tree that the verifier already has, so its root is left out."""
    if first == len(leaves):
        return () if whole else (root(leaves),)
    split = _split(len(leaves))
    if first <= split:
        return (*_subproof(leaves[:split], first, whole=whole), root(leaves[split:]))
    return (*_subproof(leaves[split:], first - split, whole=False), root(leaves[:split]))


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)
