"""Every event as one short line for a person: in a live terminal, in the journal, in a message.

What an agent or a stranger wrote may stand in a line, so control characters and overlong texts never do.
"""

from collections.abc import Callable, Sequence
from functools import singledispatch

from quarterdeck.contracts import approval, budget, eval, gateway, mission, sandbox, vault
from quarterdeck.contracts.registry import Event
from quarterdeck.kernel.money import format_usd

MAX_LENGTH = 180
NameOf = Callable[[str], str]
"""The tool of an approval id, the model of a reservation id (later events carry the id alone), or ""."""


def summarize(event: Event, name_of: NameOf) -> str:
    """At most MAX_LENGTH printable characters, no line break."""
    return one_line(_line(event, name_of))


def named_in(event: Event) -> tuple[str, str] | None:
    """The id and the name that this event teaches, for `name_of` of those that follow."""
    match event:
        case approval.ApprovalRequested() | approval.ApprovalWaived():
            return event.approval_id, event.tool
        case budget.Reserved():
            return event.reservation_id, event.model
        case _:
            return None


class Narrator:
    """Tells events in order and remembers names meanwhile: one for each mission followed."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def line(self, event: Event) -> str:
        if (taught := named_in(event)) is not None:
            self._names[taught[0]] = taught[1]
        return summarize(event, lambda id: self._names.get(id, ""))


def one_line(text: str, length: int = MAX_LENGTH) -> str:
    """Printable characters only (no escape sequences, no bidirectional overrides), blanks folded, cut."""
    shown = "".join(c if c.isprintable() else " " for c in text[: length * 8])
    shown = " ".join(shown.split())
    return shown if len(shown) <= length else shown[: length - 1] + "…"


@singledispatch
def _line(event: Event, name_of: NameOf) -> str:
    raise LookupError(f"{type(event).__name__} has no summary")


# -- mission ----------------------------------------------------------------------------------------------


@_line.register
def _(event: mission.WorkspaceDeclared, name_of: NameOf) -> str:
    crews = ", ".join(f"{crew.name} ({_count(crew.agents, 'agent')})" for crew in event.crews)
    return f"workspace {event.workspace} now has {crews or 'no crews'}"


@_line.register
def _(event: mission.MissionAccepted, name_of: NameOf) -> str:
    goal = one_line(event.goal, 80)
    return (
        f"accepted “{goal}” for crew {event.crew}: {_count(event.inputs, 'input')}, "
        f"budget {format_usd(event.budget_microusd)}, model {_model(event.model)}"
    )


@_line.register
def _(event: mission.MissionRefused, name_of: NameOf) -> str:
    return f"refused the mission: {event.message} ({event.code})"


@_line.register
def _(event: mission.RunRequested, name_of: NameOf) -> str:
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"task {event.task} goes to agent {event.crew}/{event.agent}{again}"


@_line.register
def _(event: mission.RunStarted, name_of: NameOf) -> str:
    return f"the run is under way in {event.driver}"


@_line.register
def _(event: mission.RunEnded, name_of: NameOf) -> str:
    code = "" if event.exit_code is None else f", exit code {event.exit_code}"
    detail = f": {event.detail}" if event.detail else ""
    return f"task {event.task} {event.outcome} after {_seconds(event.wall_ms)}{code}{detail}"


@_line.register
def _(event: mission.MissionParked, name_of: NameOf) -> str:
    return f"waiting for a person to decide on {name_of(event.approval_id) or event.approval_id}"


@_line.register
def _(event: mission.MissionResumed, name_of: NameOf) -> str:
    return f"goes on: {name_of(event.approval_id) or event.approval_id} is decided"


@_line.register
def _(event: mission.CancelRequested, name_of: NameOf) -> str:
    return f"{event.requested_by} asked to cancel the mission" + _because(event.reason)


@_line.register
def _(event: mission.MissionCompleted, name_of: NameOf) -> str:
    return "mission completed" + _files(event.outputs)


@_line.register
def _(event: mission.MissionFailed, name_of: NameOf) -> str:
    return f"mission failed: {event.message} ({event.code})" + _files(event.outputs)


@_line.register
def _(event: mission.MissionCancelled, name_of: NameOf) -> str:
    return "mission cancelled" + _because(event.reason)


# -- budget -----------------------------------------------------------------------------------------------


@_line.register
def _(event: budget.LimitSet, name_of: NameOf) -> str:
    if event.limit_microusd is None:
        return f"{event.changed_by} removed the limit of {event.scope}"
    window = "in all" if event.window == "total" else f"a {event.window}"
    return f"{event.changed_by} limited {event.scope} to {format_usd(event.limit_microusd)} {window}"


@_line.register
def _(event: budget.PoolOpened, name_of: NameOf) -> str:
    return f"the mission may spend {format_usd(event.limit_microusd)}"


@_line.register
def _(event: budget.Reserved, name_of: NameOf) -> str:
    amount = format_usd(event.amount_microusd)
    return f"reserved {amount} for {_model(event.model)} (within limits at {_count(event.charges, 'scope')})"


@_line.register
def _(event: budget.ReservationRefused, name_of: NameOf) -> str:
    used = format_usd(event.committed_microusd + event.reserved_microusd)
    return (
        f"refused {format_usd(event.amount_microusd)} for {_model(event.model)}: {event.scope} has used "
        f"{used} of {format_usd(event.limit_microusd)}"
    )


@_line.register
def _(event: budget.Settled, name_of: NameOf) -> str:
    return (
        f"settled at {format_usd(event.cost_microusd)}{_for(name_of(event.reservation_id))}"
        f"{_tokens(event.usage)}{_unsure(event.confidence)}"
    )


@_line.register
def _(event: budget.Released, name_of: NameOf) -> str:
    return f"released the reservation{_for(name_of(event.reservation_id))}" + _because(event.reason)


@_line.register
def _(event: budget.Expired, name_of: NameOf) -> str:
    why = "its run is over" if event.cause == "run_ended" else "its time is up"
    return f"charged {format_usd(event.cost_microusd)} unconfirmed: nobody settled it and {why}"


@_line.register
def _(event: budget.Corrected, name_of: NameOf) -> str:
    return (
        f"corrected a charge from {format_usd(event.from_microusd)} to {format_usd(event.cost_microusd)}"
        f"{_unsure(event.confidence)}"
    )


# -- approval ---------------------------------------------------------------------------------------------


@_line.register
def _(event: approval.PolicySet, name_of: NameOf) -> str:
    return f"{event.changed_by} set approval policy {event.version} with {_count(event.rules, 'rule')}"


@_line.register
def _(event: approval.ApprovalRequested, name_of: NameOf) -> str:
    rule = f" (rule {event.rule})" if event.rule else ""
    return f"agent {event.agent} asks a person: may it call {event.tool} on {event.target}?{rule}"


@_line.register
def _(event: approval.ApprovalWaived, name_of: NameOf) -> str:
    return f"{event.tool} needs no person (rule {event.rule})"


@_line.register
def _(event: approval.ApprovalDecided, name_of: NameOf) -> str:
    tool = name_of(event.approval_id) or event.approval_id
    return f"{event.decided_by} {event.outcome} {tool}" + _because(event.note)


@_line.register
def _(event: approval.ApprovalExpired, name_of: NameOf) -> str:
    return f"nobody answered for {name_of(event.approval_id) or event.approval_id} in time: denied"


@_line.register
def _(event: approval.ApprovalCancelled, name_of: NameOf) -> str:
    return f"the question about {name_of(event.approval_id) or event.approval_id} is withdrawn"


@_line.register
def _(event: approval.AnsweredLate, name_of: NameOf) -> str:
    tool = name_of(event.approval_id) or event.approval_id
    return f"too late, resumes nothing: {event.decided_by} {event.outcome} {tool}"


@_line.register
def _(event: approval.GrantRedeemed, name_of: NameOf) -> str:
    return f"the grant for {name_of(event.approval_id) or event.approval_id} is used up"


# -- vault ------------------------------------------------------------------------------------------------


@_line.register
def _(event: vault.SecretPut, name_of: NameOf) -> str:
    uses = " and ".join(event.uses)
    return f"{event.put_by} stored secret {event.name}, version {event.version} ({uses}, tier {event.tier})"


@_line.register
def _(event: vault.SecretRevoked, name_of: NameOf) -> str:
    return f"{event.revoked_by} revoked secret {event.name}" + _because(event.reason)


@_line.register
def _(event: vault.LeaseGranted, name_of: NameOf) -> str:
    where = f" for {event.target}" if event.target else ""
    return f"secret {event.name} {event.use}{where} on behalf of {event.crew}/{event.agent}: {event.intent}"


@_line.register
def _(event: vault.AccessDenied, name_of: NameOf) -> str:
    return f"secret {event.name} denied to {event.crew}/{event.agent}: {event.message} ({event.code})"


@_line.register
def _(event: vault.LeaseEnded, name_of: NameOf) -> str:
    why = "it was revoked" if event.cause == "revoked" else "the run is over"
    return f"the lease on secret {event.name} ended: {why}"


@_line.register
def _(event: vault.RunClosed, name_of: NameOf) -> str:
    return "the run gets no more secrets"


# -- sandbox ----------------------------------------------------------------------------------------------


@_line.register
def _(event: sandbox.SandboxRequested, name_of: NameOf) -> str:
    return f"preparing a sandbox for {event.crew}/{event.agent}"


@_line.register
def _(event: sandbox.SandboxStarted, name_of: NameOf) -> str:
    return f"sandbox up ({event.driver}), {_count(event.limits_held, 'limit')} held"


@_line.register
def _(event: sandbox.SandboxStopRequested, name_of: NameOf) -> str:
    return "stopping the sandbox" + _because(event.reason)


@_line.register
def _(event: sandbox.SandboxEnded, name_of: NameOf) -> str:
    how = {
        "exited": f"the agent ended with code {event.exit_code}",
        "timeout": "out of time",
        "memory": "out of memory",
        "stopped": "stopped",
        "lost": "lost",
    }[event.kind]
    peak = f", peak {event.peak_memory_bytes / (1 << 20):.0f} MiB" if event.peak_memory_bytes else ""
    return f"sandbox gone: {how} after {_seconds(event.wall_ms)}{peak}"


@_line.register
def _(event: sandbox.SandboxUnstartable, name_of: NameOf) -> str:
    return f"no sandbox could be started: {event.message} ({event.code})"


# -- gateway ----------------------------------------------------------------------------------------------


@_line.register
def _(event: gateway.LlmCallCompleted, name_of: NameOf) -> str:
    tools = ", ".join(call.name for call in event.tool_calls)
    wants = f"; it wants {tools}" if tools else ""
    cost = format_usd(event.cost_microusd)
    return (
        f"{_model(event.model)} answered in {_seconds(event.latency_ms)}{_tokens(event.usage)}, {cost}{wants}"
    )


@_line.register
def _(event: gateway.LlmCallReplayed, name_of: NameOf) -> str:
    return f"{_model(event.model)} answered from the record of an earlier attempt, at no cost"


@_line.register
def _(event: gateway.LlmCallRefused, name_of: NameOf) -> str:
    return f"LLM call refused: {event.message} ({event.code})"


@_line.register
def _(event: gateway.LlmCallFailed, name_of: NameOf) -> str:
    return f"LLM call failed: {event.message} ({event.code})"


@_line.register
def _(event: gateway.ToolProposed, name_of: NameOf) -> str:
    return f"agent {event.agent} wants to call {event.tool} on {event.target}"


@_line.register
def _(event: gateway.ToolExecuted, name_of: NameOf) -> str:
    credential = f", with secret {event.credential}" if event.credential else ""
    return (
        f"called {event.tool} on {event.target}: status {event.status_code} in "
        f"{_seconds(event.latency_ms)}{credential}"
    )


@_line.register
def _(event: gateway.ToolReturned, name_of: NameOf) -> str:
    outcome = {"ok": "gave its result to the agent", "denied": "was denied", "error": "failed"}[event.outcome]
    return f"{event.tool} {outcome}" + _because(event.message)


@_line.register
def _(event: gateway.TrajectoryClosed, name_of: NameOf) -> str:
    return "the trajectory is complete"


# -- eval -------------------------------------------------------------------------------------------------


@_line.register
def _(event: eval.MetricsRecorded, name_of: NameOf) -> str:
    m = event.metrics
    return (
        f"measured: {m.outcome}, {m.steps} steps, {m.input_tokens:,} → {m.output_tokens:,} tokens, "
        f"{format_usd(m.cost_microusd)}, {m.errors} errors"
    )


@_line.register
def _(event: eval.BaselineSet, name_of: NameOf) -> str:
    return f"{event.set_by} made this mission the baseline for missions like it"


@_line.register
def _(event: eval.MissionCompared, name_of: NameOf) -> str:
    notable = [d for d in event.deltas if d.change and d.threshold is not None]
    worst = max(notable, key=lambda d: d.change, default=None)
    change = f"; {worst.metric} {worst.baseline:g} → {worst.value:g}" if worst else ""
    return (
        f"compared with baseline {event.baseline_id}: {event.verdict}, "
        f"{event.step_distance} steps differ{change}"
    )


@_line.register
def _(event: eval.RegressionFlagged, name_of: NameOf) -> str:
    return f"REGRESSION against baseline {event.baseline_id}: {', '.join(event.metrics)}"


# -- words ------------------------------------------------------------------------------------------------


def _count(things: Sequence[object] | dict[str, str], what: str) -> str:
    return f"{len(things)} {what}" + ("" if len(things) == 1 else "s")


def _seconds(ms: int) -> str:
    return f"{ms} ms" if ms < 1_000 else f"{ms / 1_000:.1f} s"


def _model(model: str) -> str:
    """A recorded model carries the digest of its transcript: too long for a line."""
    return model.partition("@")[0]


def _for(name: str) -> str:
    return f" for {_model(name)}" if name else ""


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _tokens(usage: budget.Usage | None) -> str:
    if usage is None:
        return " (usage unknown)"
    return f" ({usage.input_tokens:,} → {usage.output_tokens:,} tokens)"


def _unsure(confidence: budget.Confidence) -> str:
    return "" if confidence == "precise" else f", {confidence}"


def _files(outputs: Sequence[mission.Artifact]) -> str:
    return ": " + ", ".join(output.name for output in outputs) if outputs else ""
