"""Secrets are taken out of text from outside, however they are echoed."""

import base64
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.domain.scrub import MARK, scrub

SECRET = "s3cr3t/+Key=="
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=60)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        quote(SECRET),
        quote(SECRET, safe=""),
        re.sub("%..", lambda escape: escape[0].lower(), quote(SECRET, safe="")),
        "".join(f"%{byte:02X}" for byte in SECRET.encode()),
        SECRET.replace("/", "\\/"),
    ],
)
def test_each_form_is_removed(form: str) -> None:
    """Plain, hex, percent-encoded in part or whole, JSON-escaped."""
    assert scrub(f"<{form}>", SECRET) == f"<{MARK}>"


@given(SECRETS, st.binary(max_size=7), st.binary(max_size=7))
def test_base64_is_removed_at_any_alignment(secret: str, before: bytes, after: bytes) -> None:
    """As in basic authentication, where a user's name shifts the secret; in both alphabets."""
    whole = before + secret.encode() + after
    for encoded in (base64.b64encode(whole).decode(), base64.urlsafe_b64encode(whole).decode()):
        left = scrub(encoded, secret)
        assert MARK in left
        assert len(left.replace(MARK, "")) <= len(encoded) - 4 * len(secret.encode()) // 3 + 6


@given(SECRETS, st.text(max_size=40), st.text(max_size=40))
def test_the_secret_itself_never_remains(secret: str, before: str, after: str) -> None:
    """Whatever stands around it."""
    assert secret not in scrub(before + secret + after, secret).replace(MARK, "\0")


@given(st.text(max_size=200))
def test_other_text_stays(text: str) -> None:
    """What holds no secret is not touched, and an empty secret removes nothing."""
    assert scrub(text, "a-secret-that-is-not-there", "") == text


def test_several_secrets_are_removed() -> None:
    """All that are given."""
    assert scrub("one two", "one", "two") == f"{MARK} {MARK}"
