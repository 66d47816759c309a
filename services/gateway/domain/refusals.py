"""How a request ends at the edge when it does not end well: one exception, and every way in which the gateway
itself says no. What other services refuse comes as `Refused` or `Unavailable`."""

from quarterdeck.kernel.errors import QuarterdeckError, Refused


class EdgeError(QuarterdeckError):
    """`status` is the HTTP status; `reason` the machine's word; `retry` whether trying again may help."""

    def __init__(
        self, message: str, *, code: str, status: int, reason: str, hint: str = "", retry: bool = False
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.reason = reason
        self.retry = retry


PAYMENT_REQUIRED = 402
"""Over a budget. Agents stop at it; a bare 429 or 500 makes them try again for a minute."""


def status_of(error: QuarterdeckError) -> int:
    """The HTTP status that says it. Fails closed: what is not a refusal is 503."""
    if isinstance(error, EdgeError):
        return error.status
    if not isinstance(error, Refused):
        return 503
    if error.rejection.transient:
        return 503
    return PAYMENT_REQUIRED if error.code.startswith("QD-BUD-") else 403


def retriable(error: QuarterdeckError) -> bool:
    """Whether the same request may pass in a moment."""
    if isinstance(error, EdgeError):
        return error.retry
    return error.rejection.transient if isinstance(error, Refused) else True


def said(error: QuarterdeckError) -> str:
    """What a person reads: what is wrong, what to do, and the code to look it up by."""
    hint = f" Hint: {error.hint}." if error.hint else ""
    return f"{error.message}.{hint} [{error.code}]"


def no_token() -> EdgeError:
    return EdgeError(
        "this request carries no mission token",
        code="QD-GTW-001",
        status=401,
        reason="no_token",
        hint="send it as `Authorization: Bearer <token>` or `x-api-key`",
    )


def bad_token(message: str, code: str = "QD-GTW-001", hint: str = "") -> EdgeError:
    return EdgeError(message, code=code, status=401, reason="bad_token", hint=hint)


def too_large(limit_bytes: int) -> EdgeError:
    return EdgeError(
        f"the request is larger than {limit_bytes:,} bytes", code="QD-GTW-002", status=413, reason="too_large"
    )


def malformed(message: str, hint: str = "") -> EdgeError:
    return EdgeError(message, code="QD-GTW-003", status=400, reason="malformed", hint=hint)


def no_price(model: str) -> EdgeError:
    return EdgeError(
        f"the price of model {model!r} is not known, so its cost can't be bounded",
        code="QD-GTW-004",
        status=403,
        reason="unknown_price",
        hint="use a model of the price book, or set QUARTERDECK_CEILING_INPUT_USD_PER_MTOK and "
        "QUARTERDECK_CEILING_OUTPUT_USD_PER_MTOK",
    )


def no_fit(protocol: str, provider: str) -> EdgeError:
    return EdgeError(
        f"provider {provider} does not speak {protocol}",
        code="QD-GTW-005",
        status=400,
        reason="protocol",
        hint="choose another model for the mission, or call the other endpoint",
    )


def unreachable(provider: str, why: str) -> EdgeError:
    return EdgeError(
        f"provider {provider} can't be reached: {why}",
        code="QD-GTW-006",
        status=502,
        reason="upstream_unreachable",
        retry=True,
    )


def upstream_failed(provider: str, why: str) -> EdgeError:
    return EdgeError(
        f"provider {provider} failed: {why}",
        code="QD-GTW-007",
        status=502,
        reason="upstream_failed",
        hint="what it may have cost is charged to the budget",
        retry=True,
    )


def upstream_cut(why: str) -> EdgeError:
    return EdgeError(
        f"the answer was cut off: {why}",
        code="QD-GTW-008",
        status=502,
        reason="upstream_cut",
        hint="what it may have cost is charged to the budget",
        retry=True,
    )


def key_refused(provider: str, status: int) -> EdgeError:
    return EdgeError(
        f"provider {provider} refused the workspace's key (HTTP {status})",
        code="QD-GTW-009",
        status=502,
        reason="key_refused",
        hint=f"put a valid one with `quarterdeck secret put provider-{provider}`",
    )


def unbounded(what: str) -> EdgeError:
    return EdgeError(
        f"{what}: the cost of the call can't be bounded before it is made",
        code="QD-GTW-010",
        status=400,
        reason="unbounded",
        hint="leave it out of the request",
    )


def not_recorded(why: str) -> EdgeError:
    return EdgeError(
        f"the answer could not be put on record: {why}", code="QD-GTW-011", status=503, reason="not_recorded"
    )


def client_gone() -> EdgeError:
    return EdgeError(
        "the agent went away before the answer was complete",
        code="QD-GTW-012",
        status=499,
        reason="client_gone",
        hint="what it may have cost is charged to the budget",
    )


def bad_transcript(message: str) -> EdgeError:
    return EdgeError(message, code="QD-GTW-019", status=400, reason="transcript")


def no_provider(model: str) -> EdgeError:
    return EdgeError(
        f"no provider is configured for model {model!r}",
        code="QD-GTW-023",
        status=400,
        reason="no_provider",
        hint="a model is recorded:, openai:, anthropic:, ollama: or compatible:<name>; the last needs "
        "QUARTERDECK_PROVIDER_COMPATIBLE_URL",
    )
