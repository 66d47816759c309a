"""What the LLM protocols mean: bounds, usage, streams, and answers rebuilt from them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.contracts.budget import Usage
from services.gateway.domain.dialects import AnthropicMessages, Call, Dialect, OpenAiChat
from services.gateway.domain.dialects.sse import Cutter
from services.gateway.domain.refusals import EdgeError

DIALECTS: list[Dialect] = [OpenAiChat(), AnthropicMessages()]
BOTH = pytest.mark.parametrize("dialect", DIALECTS, ids=["openai", "anthropic"])
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}]}
USAGE = Usage(input_tokens=20, output_tokens=9)


def read(dialect: Dialect, events: list[bytes], body: dict[str, Any]) -> tuple[Any, bytes]:
    """A reading that was fed the events, and what it passed on."""
    reading = dialect.reading(body)
    passed = b"".join(event for raw in events if (event := reading.feed(raw)) is not None)
    return reading, passed


TEXTS = st.text(max_size=600)
CALLS = st.lists(
    st.builds(
        Call,
        id=st.from_regex(r"call_[0-9]{1,4}", fullmatch=True),
        name=st.from_regex(r"[a-z_]{1,20}", fullmatch=True),
        arguments=st.dictionaries(st.text(max_size=8), st.text(max_size=300) | st.integers(), max_size=3),
    ),
    max_size=3,
)


@BOTH
@given(text=TEXTS, calls=CALLS)
def test_a_streamed_answer_is_rebuilt_whole(dialect: Dialect, text: str, calls: list[Call]) -> None:
    """Streaming an answer and reading the stream gives the answer back: text, tool calls, usage."""
    answer = dialect.compose(id="x", model="m", text=text, calls=calls, usage=USAGE)
    asked = ASKED | {"stream": True, "stream_options": {"include_usage": True}}
    events = dialect.stream_of(answer, asked)
    reading, passed = read(dialect, events, asked)
    assert passed == b"".join(events)
    assert (reading.finished, reading.ended, reading.usage_seen, reading.failure) == (True, True, True, "")
    rebuilt = reading.answer()
    assert dialect.usage(rebuilt) == dialect.usage(answer) == USAGE
    assert dialect.tool_calls(rebuilt) == dialect.tool_calls(answer)
    assert dialect.stop_reason(rebuilt) == dialect.stop_reason(answer)
    if dialect.name == "anthropic.messages":
        assert rebuilt == answer
    else:
        message, wanted = rebuilt["choices"][0]["message"], answer["choices"][0]["message"]
        assert (message["content"] or None) == wanted["content"]
        assert message.get("tool_calls") == wanted.get("tool_calls")


@given(st.binary(max_size=50), st.lists(st.integers(1, 30), max_size=40))
def test_events_come_out_whole_however_the_bytes_arrive(noise: bytes, cuts: list[int]) -> None:
    """Any cut of a stream into chunks gives the same events, and no byte is lost."""
    noise = noise.replace(b"\n", b".").replace(b"\r", b".")
    stream = b"data: 1\n\n: ping\r\n\r\nevent: e\ndata: " + noise + b"\n\ndata: last"
    cutter, events, rest = Cutter(), [], stream
    for size in cuts:
        events += cutter.feed(rest[:size])
        rest = rest[size:]
    events += cutter.feed(rest) + cutter.flush()
    assert b"".join(events) == stream + b"\n\n"
    assert len(events) == 4


def test_an_endless_event_is_cut_off() -> None:
    """A provider that never ends an event does not fill the memory."""
    cutter = Cutter()
    with pytest.raises(EdgeError, match="QD-GTW-008"):
        for _ in range(20):
            cutter.feed(b"x" * (1 << 20))


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        ({}, 4096),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "prediction": "abcd"}, 16),
    ],
)
def test_chat_output_is_bounded(body: dict[str, Any], bound: int) -> None:
    """By the larger limit, for each choice, and by a prediction whose rejected tokens are billed."""
    assert OpenAiChat().output_bound(ASKED | body, 4096) == bound


@pytest.mark.parametrize(
    ("body", "bound"),
    [({}, 4096), ({"max_tokens": 10}, 10), ({"max_tokens": 10, "thinking": {"budget_tokens": 99}}, 99)],
)
def test_messages_output_is_bounded(body: dict[str, Any], bound: int) -> None:
    """By max_tokens, or by a thinking budget that is larger."""
    assert AnthropicMessages().output_bound(ASKED | body, 4096) == bound


@pytest.mark.parametrize(
    ("field", "body", "leaves"),
    [
        ("max_completion_tokens", {}, {"max_completion_tokens": 50}),
        ("max_completion_tokens", {"max_tokens": 7}, {"max_tokens": 7}),
        ("max_tokens", {}, {"max_tokens": 50}),
        ("max_tokens", {"max_completion_tokens": 50}, {"max_tokens": 50}),
    ],
)
def test_the_limit_stands_where_the_provider_looks_for_it(
    field: str, body: dict[str, Any], leaves: dict[str, Any]
) -> None:
    """A limit under a name that the provider ignores would bound nothing."""
    outgoing = OpenAiChat().outgoing(ASKED | body, model="m", output_tokens=50, limit_field=field)
    limits = {name: value for name, value in outgoing.items() if name.startswith("max_")}
    assert limits == leaves


@BOTH
@pytest.mark.parametrize(
    "more",
    [
        {"messages": "hello"},
        {"messages": [1]},
        {"stream": "yes"},
        {"tools": {"a": 1}},
        {"tools": [1]},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"max_tokens": "9"},
        {"max_tokens": 10**9},
        {"service_tier": "priority"},
        {"speed": "fast"},
        {"inference_geo": "us"},
        {"fallbacks": ["m"]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "code_execution_20250825", "name": "x"}]},
    ],
)
def test_what_is_malformed_or_has_no_bound_is_refused(dialect: Dialect, more: dict[str, Any]) -> None:
    """Wrong types, and everything that lets a provider bill what can't be foreseen."""
    with pytest.raises(EdgeError) as refused:
        dialect.check(ASKED | more)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "more",
    [
        {"n": 0},
        {"n": 1000},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"stream_options": 1},
        {"tools": [{"function": {"name": "x"}}]},
    ],
)
def test_chat_has_refusals_of_its_own(more: dict[str, Any]) -> None:
    """Choices without end, audio, search by the provider."""
    with pytest.raises(EdgeError):
        OpenAiChat().check(ASKED | more)


@pytest.mark.parametrize(
    "more", [{"mcp_servers": [{"url": "https://x"}]}, {"container": "c"}, {"thinking": {"budget_tokens": -1}}]
)
def test_messages_has_refusals_of_its_own(more: dict[str, Any]) -> None:
    """Tools that the provider would run."""
    with pytest.raises(EdgeError):
        AnthropicMessages().check(ASKED | more)


@pytest.mark.parametrize(
    ("dialect", "content", "media"),
    [
        (OpenAiChat(), "text", False),
        (OpenAiChat(), [{"type": "text", "text": "a"}], False),
        (OpenAiChat(), [{"type": "image_url", "image_url": {"url": "https://x"}}], True),
        (OpenAiChat(), [{"type": "of_tomorrow"}], True),
        (AnthropicMessages(), [{"type": "text", "text": "a"}], False),
        (AnthropicMessages(), [{"type": "document"}], True),
        (AnthropicMessages(), [{"type": "tool_result", "content": [{"type": "image"}]}], True),
        (AnthropicMessages(), [{"type": "tool_result", "content": "plain"}], False),
    ],
)
def test_media_are_recognised(dialect: Dialect, content: Any, media: bool) -> None:
    """Whatever is not known to be text counts as media: its bytes bound nothing."""
    assert dialect.has_media({"messages": [{"role": "user", "content": content}]}) is media


@BOTH
@pytest.mark.parametrize("usage", [None, 7, {}, {"prompt_tokens": -1}, {"input_tokens": True}])
def test_a_usage_that_is_none_is_unknown(dialect: Dialect, usage: Any) -> None:
    """What a provider counts wrongly is not counted as nothing."""
    assert dialect.usage({"usage": usage}) is None


def test_anthropics_input_includes_its_caches() -> None:
    """Our input tokens are all input tokens; the provider counts cached ones apart."""
    counted = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 100,
    }
    assert AnthropicMessages().usage({"usage": counted}) == Usage(
        input_tokens=111, output_tokens=2, cache_read_tokens=10, cache_write_tokens=100
    )


@pytest.mark.parametrize(
    "raw", [b"data: nonsense\n\n", b"data: [1]\n\n", b": hi\n\n", b"\xff\n\n", b'data: {"choices": 3}\n\n']
)
@BOTH
def test_events_that_mean_nothing_pass_on(dialect: Dialect, raw: bytes) -> None:
    """A provider's oddities reach the agent as they are and break nothing."""
    reading = dialect.reading(ASKED)
    assert reading.feed(raw) == raw
    assert not reading.finished


def test_usage_before_the_end_is_not_final() -> None:
    """A stream that is cut after an early count is not settled at it."""
    reading = OpenAiChat().reading(ASKED)
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": {"prompt_tokens": 1}}
    reading.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert not reading.usage_seen
    message = AnthropicMessages().reading(ASKED)
    message.feed(b'data: {"type": "message_start", "message": {"usage": {"input_tokens": 5}}}\n\n')
    assert not message.usage_seen
