"""The ways in which something can go wrong.

    QuarterdeckError
    ├── VersionConflict      somebody else wrote the family first: reload and decide again
    ├── Unavailable          NATS, a sandbox, a provider is not there now: try again later
    ├── ContractViolation    a message that can't be decoded: it goes to the dead letters
    ├── Refused              a rule said no; the exception form of a `Rejected` that crossed the bus
    └── SetupProblem         this machine or configuration can't do it; says how to mend that

A refusal inside a decider is a value (`Rejected`), never an exception.
"""

from typing import Any

import msgspec


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A rule says no. A value: it is recorded where the mission asks for it, replied, and acknowledged.

    `code` is stable (`QD-BUD-002`); `reason` is the machine's word (`over_limit`); `message` says what was
    wrong and where; `hint` what to do; `transient` whether the same request may pass later.
    """

    code: str
    reason: str
    message: str
    hint: str = ""
    transient: bool = False
    details: dict[str, Any] = {}


class QuarterdeckError(Exception):
    """Root of all errors. `code` is stable; `hint` says what to do."""

    code = "QD-GEN-001"

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class VersionConflict(QuarterdeckError):
    """The family moved on since it was read. Reload, decide again."""

    code = "QD-LOG-001"


class Unavailable(QuarterdeckError):
    """Something that is needed does not answer. `retry_after_ms` is the least sensible wait."""

    code = "QD-BUS-001"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str = "", retry_after_ms: int = 1_000
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after_ms = retry_after_ms


class ContractViolation(QuarterdeckError):
    """The message can't be decoded as what its subject or type says it is."""

    code = "QD-BUS-003"


class SetupProblem(QuarterdeckError):
    """This machine, port, file or setting can't do what was asked; `hint` says how to mend it."""

    code = "QD-SET-001"


class Refused(QuarterdeckError):
    """A `Rejected` that came back over the bus. `rejection` is the value itself."""

    def __init__(self, rejection: Rejected) -> None:
        super().__init__(rejection.message, code=rejection.code, hint=rejection.hint)
        self.rejection = rejection
