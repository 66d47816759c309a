"""Takes secret values out of text from outside, in the forms in which one is usually echoed."""

import base64
import re
from urllib.parse import quote, quote_plus

MARK = "[secret removed]"
SHORTEST = 4
"""Shorter values are scrubbed only as they are: their encodings would match ordinary text."""


def scrub(text: str, *secrets: str) -> str:
    """`text` without the secrets: plain, JSON-escaped, base64 (any alignment, both alphabets), hex and
    percent-encoded. Letter case of hex and of percent escapes does not matter."""
    for secret in secrets:
        if secret:
            text = _pattern(secret).sub(MARK, text)
    return text


def _pattern(secret: str) -> re.Pattern[str]:
    raw = secret.encode()
    forms = [re.escape(secret)]
    if len(secret) >= SHORTEST:
        forms += [re.escape(_escaped(secret)), "(?i:" + re.escape(raw.hex()) + ")"]
        forms += [_percent(form) for form in (quote(secret, safe=""), quote(secret), quote_plus(secret))]
        forms.append("".join(f"%(?i:{byte:02x})" for byte in raw))
        forms += [re.escape(form) for form in _base64_forms(raw)]
    return re.compile("|".join(sorted(set(forms), key=len, reverse=True)))


def _escaped(secret: str) -> str:
    return secret.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("/", "\\/")


def _percent(form: str) -> str:
    return re.sub(r"%([0-9A-F]{2})", r"%(?i:\1)", re.escape(form))


def _base64_forms(raw: bytes) -> list[str]:
    """The characters that depend on the secret alone, for each of the three ways it can be aligned inside a
    longer text (`user:secret` of basic authentication, for one)."""
    forms = []
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        start = (0, 2, 3)[offset]
        whole = (offset + len(raw)) % 3 == 0
        stable = encoded[start:] if whole else encoded[start:-1]
        if len(stable) >= SHORTEST:
            forms += [stable, stable.replace("+", "-").replace("/", "_")]
    return forms
