"""A tool call while it is under way: its identity, its words for the agent, what is recorded of it."""

from dataclasses import dataclass
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import jsonschema.exceptions  # type: ignore[import-untyped]
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from quarterdeck.contracts.approval import ApprovalReply
from quarterdeck.contracts.gateway import ProposeAction, RecordExecution, RecordReturn
from quarterdeck.contracts.mission import Tool
from quarterdeck.kernel.digest import canonical, sha256
from quarterdeck.kernel.errors import ContractViolation, QuarterdeckError
from services.gateway.domain.refusals import said
from services.gateway.ports import Caller, Outcome, ToolResult

DENIED = "DENIED"
"""With this a result begins when a rule or a person said no. Agents and transcripts may look for it."""
MAX_ARGUMENTS_BYTES = 512 << 10
"""They travel in an ask, which holds 1 MiB."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """A tool call with an identity: the same call of a later attempt is the same action."""

    caller: Caller
    tool: Tool
    target: str
    arguments: dict[str, Any]
    arguments_sha256: str
    occurrence: int

    @property
    def id(self) -> str:
        run = self.caller.run
        return action_id(run.mission_id, run.task, self.tool.name, self.arguments_sha256, self.occurrence)

    def proposal(self) -> ProposeAction:
        run = self.caller.run
        return ProposeAction(
            action_id=self.id,
            mission_id=run.mission_id,
            run_id=run.run_id,
            crew=run.crew,
            agent=run.agent,
            task=run.task,
            tool=self.tool.name,
            arguments_sha256=self.arguments_sha256,
            target=self.target,
        )

    def execution(
        self, *, status: int, latency_ms: int, lease_id: str, result_sha256: str
    ) -> RecordExecution:
        return RecordExecution(
            action_id=self.id,
            mission_id=self.caller.run.mission_id,
            status_code=status,
            latency_ms=max(0, latency_ms),
            credential=self.tool.credential or "",
            lease_id=lease_id,
            result_sha256=result_sha256,
        )

    def returned(self, ending: "Ending", result_sha256: str) -> RecordReturn:
        return RecordReturn(
            action_id=self.id,
            mission_id=self.caller.run.mission_id,
            outcome=ending.outcome,
            code=ending.code,
            message=ending.message[:2_000],
            result_sha256=result_sha256,
        )


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an action ended, and what the agent reads."""

    outcome: Outcome
    text: str
    code: str = ""
    message: str = ""

    @property
    def result(self) -> ToolResult:
        return ToolResult(text=self.text, is_error=self.outcome != "ok")


def action_id(mission_id: str, task: str, tool: str, arguments_sha256: str, occurrence: int) -> str:
    """128 bits of a digest: also the approval's id and the Idempotency-Key of the outbound request."""
    return sha256(f"{mission_id}|{task}|{tool}|{arguments_sha256}|{occurrence}".encode())[:32]


def checked_arguments(tool: Tool, arguments: dict[str, Any]) -> bytes:
    """The arguments in canonical form. Raises ContractViolation that says what does not fit the schema."""
    try:
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        # A registry of its own: the default one would fetch what a schema refers to from the network.
        jsonschema.Draft202012Validator(tool.input_schema, registry=EMPTY_REGISTRY).validate(arguments)
    except jsonschema.exceptions.ValidationError as error:
        place = error.json_path.removeprefix("$").removeprefix(".") or "the arguments"
        raise ContractViolation(f"{place}: {error.message[:500]}", code="QD-GTW-014") from None
    except (jsonschema.exceptions.SchemaError, Unresolvable, RecursionError) as error:
        raise ContractViolation(
            f"the declared schema of tool {tool.name} can't be used: {type(error).__name__}",
            code="QD-GTW-014",
        ) from None
    content = canonical(arguments)
    if len(content) > MAX_ARGUMENTS_BYTES:
        raise ContractViolation(
            f"the arguments have {len(content):,} bytes; {MAX_ARGUMENTS_BYTES:,} are allowed",
            code="QD-GTW-014",
        )
    return content


def denied_by(approval: ApprovalReply) -> Ending:
    """What the agent is told of a no: who, why, and the code."""
    code, who = "QD-APR-403", approval.decided_by or "nobody"
    why = {
        "denied": f"{who} said no",
        "expired": "nobody answered in time",
        "cancelled": "the mission is over",
    }.get(approval.status, f"the approval is {approval.status}")
    note = f": {approval.note}" if approval.note else ""
    message = f"{why}{note}"
    return Ending(
        outcome="denied",
        text=f"{DENIED} {message} [{code}, approval {approval.approval_id}]",
        code=code,
        message=message,
    )


def refused_by(error: QuarterdeckError) -> Ending:
    """A rule of the approval service or the vault said no."""
    return Ending(outcome="denied", text=f"{DENIED} {said(error)}", code=error.code, message=error.message)


def failed(error: QuarterdeckError) -> Ending:
    return Ending(outcome="error", text=said(error), code=error.code, message=error.message)


def answered(status: int, text: str) -> Ending:
    """The endpoint's own answer; anything but 2xx is an error to the agent."""
    if 200 <= status < 300:
        return Ending(outcome="ok", text=text)
    return Ending(
        outcome="error",
        text=f"HTTP {status}: {text}",
        code="QD-GTW-018",
        message=f"the endpoint answered HTTP {status}",
    )
