"""The recorded provider plays its transcript by what the conversation says."""

from typing import Any

import pytest

from services.gateway.adapters.providers.recorded import ENDED, ToolCall, Transcript, Turn, respond
from services.gateway.domain.dialects import AnthropicMessages, Dialect, OpenAiChat

RUN = Turn(text="I look.", tool_calls=(ToolCall(name="run", arguments={"code": "1", "deep": [{"k": "v"}]}),))
PUBLISH = Turn(
    tool_calls=(ToolCall(name="publish", arguments={"body": "got {{result:0}} and {{result:-1}}", "n": 3}),)
)
TRANSCRIPT = Transcript(
    name="steady",
    priced_as="gpt-4o-mini",
    turns=(RUN, RUN, PUBLISH, Turn(text="Published: {{result:2}}{{result:9}}")),
    after_denial=(Turn(text="I was told no: {{result:-1}}"), Turn(text="Still no.")),
)
DIALECTS: list[Dialect] = [OpenAiChat(), AnthropicMessages()]
BOTH = pytest.mark.parametrize("dialect", DIALECTS, ids=["openai", "anthropic"])


def conversation(dialect: Dialect, *results: str) -> dict[str, Any]:
    """One assistant turn with one tool call for each result so far."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for number, result in enumerate(results):
        if dialect.name == "openai.chat":
            messages.append({"role": "assistant", "content": None, "tool_calls": []})
            messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": result})
        else:
            messages.append({"role": "assistant", "content": [{"type": "tool_use", "id": f"c{number}"}]})
            block = {"type": "tool_result", "tool_use_id": f"c{number}"}
            messages.append(
                {"role": "user", "content": [{**block, "content": [{"type": "text", "text": result}]}]}
            )
    return {"messages": messages}


def played(dialect: Dialect, *results: str, output_tokens: int = 4096) -> dict[str, Any]:
    return respond(TRANSCRIPT, dialect, conversation(dialect, *results), output_tokens)


def said(dialect: Dialect, answer: dict[str, Any]) -> str:
    if dialect.name == "openai.chat":
        return str(answer["choices"][0]["message"]["content"])
    return "".join(block.get("text", "") for block in answer["content"])


@BOTH
def test_turns_follow_the_conversation(dialect: Dialect) -> None:
    """The number of assistant turns chooses; the same conversation gets the same answer."""
    assert said(dialect, played(dialect)) == "I look."
    assert played(dialect, "a") == played(dialect, "a")
    assert [call.name for call in dialect.tool_calls(played(dialect, "a", "b"))] == ["publish"]
    assert dialect.stop_reason(played(dialect)) in ("tool_calls", "tool_use")
    assert said(dialect, played(dialect, "a", "b", "c", "d")) == ENDED


@BOTH
def test_results_are_filled_in(dialect: Dialect) -> None:
    """From the beginning, from the end, deep inside arguments; one that is not there is empty."""
    answer = played(dialect, "first", "second")
    assert "got first and second" in str(answer)
    assert said(dialect, played(dialect, "a", "b", "c")) == "Published: c"


@BOTH
def test_a_denial_turns_the_story(dialect: Dialect) -> None:
    """From the first result that begins with DENIED on, the other turns are played, from their first."""
    assert said(dialect, played(dialect, "a", "DENIED by ada")) == "I was told no: DENIED by ada"
    assert said(dialect, played(dialect, "a", "DENIED by ada", "c")) == "Still no."
    assert said(dialect, played(dialect, "a", "DENIED by ada", "c", "d")) == ENDED


@BOTH
def test_usage_is_a_quarter_of_the_bytes_and_within_the_limit(dialect: Dialect) -> None:
    """At least one token each way, and no more output than the call reserved."""
    usage = dialect.usage(played(dialect))
    assert usage is not None
    assert usage.input_tokens > 5
    assert usage.output_tokens > 5
    short = dialect.usage(played(dialect, output_tokens=2))
    assert short is not None
    assert short.output_tokens == 2
