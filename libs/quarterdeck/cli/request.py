"""Requests made from words on a command line, held against the contract before they are sent."""

from typing import TypeVar

import msgspec

from quarterdeck.contracts.registry import Request
from quarterdeck.kernel.errors import SetupProblem

R = TypeVar("R", bound=Request)


def checked(request: R, hint: str = "see --help for what it may be") -> R:
    """The request itself. Raises SetupProblem (QD-CLI-002) naming the field that the contract refuses."""
    try:
        return msgspec.convert(msgspec.to_builtins(request), type(request))
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        raise SetupProblem(
            f"{place.rstrip('`') or 'the request'}: {words[:1].lower()}{words[1:]}",
            code="QD-CLI-002",
            hint=hint,
        ) from None
