"""The Merkle tree against published vectors and against the definition."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.kernel.merkle import (
    Frontier,
    consistency_proof,
    frontier,
    inclusion_proof,
    leaf_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The reference vectors of Certificate Transparency (RFC 6962), as its implementations carry them.
ENTRIES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                 "606162636465666768696a6b6c6d6e6f")
]  # fmt: skip
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
NODES = {
    "1": "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "23": "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "4-7": "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "4": "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "67": "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "0-3": "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "45": "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
}


def nodes(*names: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(NODES[name]) for name in names)


def by_definition(entries: list[bytes]) -> bytes:
    """MTH word for word from the RFC, on entries, sharing no code with what is tested."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\0" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha256(b"\1" + by_definition(entries[:k]) + by_definition(entries[k:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    """The first n of the eight reference entries have the reference root."""
    assert root(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [
        (0, 1, ()),
        (0, 8, nodes("1", "23", "4-7")),
        (5, 8, nodes("4", "67", "0-3")),
    ],
)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int, proof: tuple[bytes, ...]) -> None:
    """The reference inclusion proofs come out and verify."""
    assert inclusion_proof(LEAVES[:size], index) == proof
    assert verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(
    ("first", "second", "proof"),
    [
        (1, 1, ()),
        (1, 8, nodes("1", "23", "4-7")),
        (6, 8, nodes("45", "67", "0-3")),
        (2, 5, nodes("23", "4")),
    ],
)
def test_consistency_proofs_are_the_published_ones(first: int, second: int, proof: tuple[bytes, ...]) -> None:
    """The reference consistency proofs come out and verify."""
    assert consistency_proof(LEAVES[:second], first) == proof
    heads = bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[second])
    assert verify_consistency(first, second, proof, *heads)


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_the_root_is_the_definition(entries: list[bytes]) -> None:
    """Appending leaf by leaf gives what the RFC's recursion gives."""
    grown = Frontier()
    for entry in entries:
        grown = grown.append(leaf_hash(entry))
    assert grown.root() == by_definition(entries)
    assert grown.size == len(entries)
    assert len(grown.hashes) == len(entries).bit_count()


@given(st.integers(1, 64), st.data())
def test_every_leaf_proves_its_place_and_no_other(size: int, draw: st.DataObject) -> None:
    """An inclusion proof holds for its own leaf, index, size and root, and for nothing else."""
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    index = draw.draw(st.integers(0, size - 1))
    head, proof = root(leaves), inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, size, proof, head)
    other = draw.draw(st.integers(0, size))
    if other != index:
        assert not verify_inclusion(leaves[index], other, size, proof, head)
    assert not verify_inclusion(leaf_hash(b"another"), index, size, proof, head)
    assert not verify_inclusion(leaves[index], index, size, (*proof, head), head)
    if proof:
        assert not verify_inclusion(leaves[index], index, size, proof[:-1], head)


@given(st.integers(1, 64), st.data())
def test_a_rewritten_past_has_no_consistency_proof(size: int, draw: st.DataObject) -> None:
    """A consistency proof holds for a true prefix, and not when the old head was of other leaves."""
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    first = draw.draw(st.integers(1, size))
    proof = consistency_proof(leaves, first)
    assert verify_consistency(first, size, proof, root(leaves[:first]), root(leaves))
    forged = [leaf_hash(b"forged"), *leaves[1:first]]
    assert not verify_consistency(first, size, proof, root(forged), root(leaves))
    assert not verify_consistency(first, size, (*proof, root(leaves)), root(leaves[:first]), root(leaves))


def test_a_leaf_is_not_a_node() -> None:
    """An entry made of two hashes doesn't have the hash of the node above them."""
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != root(LEAVES[:2])
    assert frontier(LEAVES).root() == root(LEAVES)
