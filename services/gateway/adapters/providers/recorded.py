"""The recorded provider: a transcript that drives real tools, deterministically, at a real model's price.

A model `recorded:<name>@<sha256>` names a transcript in the artifact store:

    {"name": …, "priced_as": a model of the price book, "delay_ms": …,
     "turns": [{"text": …, "tool_calls": [{"name": …, "arguments": {…}}]}, …],
     "after_denial": [turns that follow once a tool result begins with DENIED]}

A turn is chosen by the number of assistant messages in the request, so the same conversation gets the same
answer from any process. `{{result:<k>}}` in any string stands for the k-th tool result, counted from 0 or,
where negative, from the end.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from quarterdeck.bus.artifacts import Artifacts
from quarterdeck.contracts.budget import Usage
from quarterdeck.contracts.registry import decode
from quarterdeck.kernel.errors import ContractViolation, SetupProblem
from services.gateway.domain.dialects import Call, Dialect, Said
from services.gateway.domain.refusals import bad_transcript
from services.gateway.ports import Key, Outgoing

DENIED = "DENIED"
ENDED = "(the transcript has ended)"
BYTES_PER_TOKEN = 4
KEPT = 32
"""Transcripts held in memory."""
_RESULT = re.compile(r"\{\{result:(-?\d{1,4})\}\}")


class ToolCall(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any] = {}


class Turn(msgspec.Struct, frozen=True):
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Transcript(msgspec.Struct, frozen=True):
    name: str
    priced_as: str
    turns: tuple[Turn, ...]
    delay_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0
    after_denial: tuple[Turn, ...] | None = None


class RecordedUpstream:
    status = 200

    def __init__(self, content: list[bytes]) -> None:
        self._content = content
        self.headers: dict[str, str] = {}

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._content:
            yield piece

    async def close(self) -> None:
        return None


class RecordedProvider:
    name = "recorded"
    limit_field = "max_tokens"
    key: Key | None = None

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._transcripts: dict[str, Transcript] = {}
        self.calls = 0
        """How often it was asked: a replayed call does not come here."""

    def speaks(self, dialect: Dialect) -> bool:
        return True

    async def priced_as(self, model: str) -> tuple[str | None, str]:
        return None, (await self._transcript(model)).priced_as

    async def send(self, outgoing: Outgoing, key: str) -> RecordedUpstream:
        transcript = await self._transcript(outgoing.model)
        self.calls += 1
        await asyncio.sleep(transcript.delay_ms / 1000)
        answer = respond(transcript, outgoing.dialect, outgoing.body, outgoing.output_tokens)
        if outgoing.body.get("stream"):
            return RecordedUpstream(outgoing.dialect.stream_of(answer, outgoing.body))
        return RecordedUpstream([json.dumps(answer, ensure_ascii=False).encode()])

    async def _transcript(self, model: str) -> Transcript:
        """Raises EdgeError (QD-GTW-019) when there is none or it is not one."""
        _, at, name = model.partition("@")
        if not at:
            raise bad_transcript(f"recorded model {model!r} does not name its transcript's artifact")
        if (known := self._transcripts.get(name)) is not None:
            return known
        try:
            found: Transcript = decode(await self._artifacts.get(name), Transcript, f"transcript {model}")
        except (ContractViolation, SetupProblem) as error:
            raise bad_transcript(error.message) from None
        if len(self._transcripts) >= KEPT:
            self._transcripts.pop(next(iter(self._transcripts)))
        self._transcripts[name] = found
        return found


def respond(
    transcript: Transcript, dialect: Dialect, body: dict[str, Any], output_tokens: int
) -> dict[str, Any]:
    """The transcript's answer to this conversation, in the protocol's form."""
    said = dialect.history(body)
    results = [turn.text for turn in said if turn.by == "result"]
    turn, number = _turn(transcript, said)
    text = _filled(turn.text, results)
    calls = [
        Call(id=f"call_{number}_{index}", name=call.name, arguments=_filled(call.arguments, results))
        for index, call in enumerate(turn.tool_calls)
    ]
    asked = json.dumps([body.get("messages"), body.get("tools")], ensure_ascii=False)
    answered = text + "".join(call.name + json.dumps(call.arguments, ensure_ascii=False) for call in calls)
    usage = Usage(
        input_tokens=_tokens(asked),
        # A model would have been cut off at the limit; a transcript is not, but it is billed no more.
        output_tokens=min(_tokens(answered), output_tokens),
    )
    return dialect.compose(
        id=f"recorded-{number}", model=transcript.name, text=text, calls=calls, usage=usage
    )


def _turn(transcript: Transcript, said: list[Said]) -> tuple[Turn, int]:
    """The turn to play and its number in the whole conversation."""
    number = sum(1 for turn in said if turn.by == "assistant")
    turns, position = transcript.turns, number
    denied = next((i for i, s in enumerate(said) if s.by == "result" and s.text.startswith(DENIED)), None)
    if denied is not None and transcript.after_denial is not None:
        turns = transcript.after_denial
        position = sum(1 for turn in said[denied:] if turn.by == "assistant")
    return (turns[position] if position < len(turns) else Turn(text=ENDED)), number


def _filled(value: Any, results: list[str]) -> Any:
    """`value` with each placeholder replaced. A result that is not there stands as an empty text."""
    if isinstance(value, str):
        return _RESULT.sub(lambda match: _result(results, int(match[1])), value)
    if isinstance(value, dict):
        return {key: _filled(inner, results) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, results) for inner in value]
    return value


def _result(results: list[str], index: int) -> str:
    return results[index] if -len(results) <= index < len(results) else ""


def _tokens(text: str) -> int:
    return max(1, -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN))
