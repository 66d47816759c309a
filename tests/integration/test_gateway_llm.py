"""LLM calls through the gateway, among the real services and in front of a fake provider."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from quarterdeck.bus.embedded import free_port
from quarterdeck.chassis import Bus
from quarterdeck.contracts.budget import ReservationRefused, Reserved
from quarterdeck.contracts.gateway import (
    LlmCallCompleted,
    LlmCallFailed,
    LlmCallRefused,
    LlmCallReplayed,
)
from quarterdeck.contracts.vault import RevokeSecret
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.eventlog.store import Family
from quarterdeck.telemetry.tracing import Tracing
from quarterdeck.testkit.bus import settings_for, throwaway_server
from quarterdeck.testkit.eventually import eventually
from services.gateway.app import build
from services.gateway.settings import Settings as GatewaySettings
from tests.integration.gateway_upstream import COMPLETION_TOKENS, PROMPT_TOKENS, WORDS
from tests.integration.gateway_world import ANTHROPIC_KEY, OPENAI_KEY, Run, World, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BOTH = pytest.mark.parametrize("path", [CHAT, MESSAGES])
MODELS = {CHAT: "openai:gpt-4o-mini", MESSAGES: "anthropic:claude-sonnet-4-5"}
# 7 tokens uncached, 4 from the cache, 5 out at $0.15, $0.075 and $0.60 a million: 4.35 micro-USD, rounded up.
CHAT_COST_MICROUSD = 5
# 11 uncached, 4 more from the cache, 5 out at $3, $0.30 and $15 a million: 109.2 micro-USD, rounded up.
MESSAGES_COST_MICROUSD = 110
COSTS = {CHAT: CHAT_COST_MICROUSD, MESSAGES: MESSAGES_COST_MICROUSD}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("gateway")
    async with throwaway_server(directory) as server, running(server, directory) as world:
        yield world


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def fresh(world: World) -> None:
    """Gates that are shut, and a gateway that is up whatever became of the test before."""
    if world.gateway is None:
        await world.start_gateway()
    world.upstream.gate = asyncio.Event()
    world.upstream.begun = asyncio.Event()
    world.upstream.hung_up = asyncio.Event()


def asked(behaviour: str = "plain", **more: Any) -> dict[str, Any]:
    return {"model": "whatever", "messages": [{"role": "user", "content": behaviour}], **more}


async def call(world: World, run: Run, path: str, body: dict[str, Any]) -> httpx.Response:
    async with world.http(run) as http:
        return await http.post(path, json=body)


async def streamed(world: World, run: Run, path: str, body: dict[str, Any]) -> str:
    """Everything that a stream brings."""
    async with world.http(run) as http, http.stream("POST", path, json=body | {"stream": True}) as reply:
        assert reply.status_code == 200, await reply.aread()
        assert reply.headers["content-type"].startswith("text/event-stream")
        return "".join([text async for text in reply.aiter_text()])


def text_in(stream: str) -> str:
    """The text of a stream of either protocol."""
    found = ""
    for line in stream.splitlines():
        if line.startswith("data: {"):
            data = json.loads(line[6:])
            for choice in data.get("choices", []):
                found += choice["delta"].get("content") or ""
            found += (data.get("delta") or {}).get("text", "")
    return found


async def run_of(world: World, path: str, **workspace: Any) -> Run:
    return await world.run(await world.workspace(model=MODELS[path], **workspace))


# -- the way of a call ------------------------------------------------------------------------------------


async def test_a_chat_call_goes_through_untouched(world: World) -> None:
    """Model and output limit are the mission's; all else, unknown fields included, passes both ways; the
    provider gets the workspace's key and nothing of the agent's."""
    run = await run_of(world, CHAT)
    body = asked(temperature=0.1, seed=2**62, from_the_future={"kept": [1, None, "ü"]})
    async with world.http(run, cookie="a=b", **{"x-stainless-os": "Linux"}) as http:
        reply = await http.post(CHAT, json=body)
    assert reply.json()["from_the_future"] == {"kept": True}
    path, headers, seen = world.upstream.seen[-1]
    assert path == CHAT
    assert seen == body | {"model": "gpt-4o-mini", "max_completion_tokens": 4096}
    assert headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert run.token not in str(headers)
    assert not {"cookie", "x-stainless-os", "x-api-key"} & headers.keys()


async def test_a_messages_call_keeps_its_anthropic_headers(world: World) -> None:
    """`anthropic-version` and `anthropic-beta` go up, the agent's key does not."""
    run = await run_of(world, MESSAGES)
    headers = {
        "x-api-key": run.token,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "tools-2024-04-04",
    }
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
        reply = await http.post(MESSAGES + "?beta=true", json=asked(max_tokens=100), headers=headers)
    assert reply.status_code == 200
    _, seen, body = world.upstream.seen[-1]
    assert (seen["anthropic-version"], seen["anthropic-beta"]) == ("2023-06-01", "tools-2024-04-04")
    assert seen["x-api-key"] == ANTHROPIC_KEY
    assert "authorization" not in seen
    assert (body["model"], body["max_tokens"]) == ("claude-sonnet-4-5", 100)


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_settled_at_its_real_usage_and_on_record(
    world: World, path: str, stream: bool
) -> None:
    """Reserved at the worst case, settled at the provider's own count with cached tokens apart, and the whole
    question and answer lie in the artifact store under the hashes that the event carries."""
    run = await run_of(world, path)
    if stream:
        assert text_in(await streamed(world, run, path, asked())) == "".join(WORDS)
    else:
        assert (await call(world, run, path, asked())).status_code == 200
    assert await world.spent(run.workspace) == (COSTS[path], 0)
    (step,) = await world.steps(run, LlmCallCompleted)
    assert (step.cost_microusd, step.confidence, step.stream) == (COSTS[path], "precise", stream)
    assert (step.usage.output_tokens, step.usage.cache_read_tokens) == (COMPLETION_TOKENS, 4)
    assert step.usage.input_tokens == PROMPT_TOKENS + (4 if path == MESSAGES else 0)
    question = json.loads(await world.client.artifacts.get(step.request_sha256))
    assert question["body"]["messages"] == asked()["messages"]
    answer = json.loads(await world.client.artifacts.get(step.response_sha256))
    found = answer["choices"][0]["message"] if path == CHAT else answer["content"][0]
    assert found.get("content") or found.get("text") == "".join(WORDS)
    reserved = [e for e in await world.events("budget", run.workspace) if isinstance(e, Reserved)]
    assert [r.reservation_id for r in reserved] == [step.reservation_id]
    assert reserved[0].amount_microusd > step.cost_microusd


async def test_tool_calls_of_the_answer_are_sketched(world: World) -> None:
    """The event names the tools that the model wants, and carries their arguments as a hash only."""
    run = await run_of(world, CHAT)
    tools = [{"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}]
    await call(world, run, CHAT, asked("tool", tools=tools))
    (step,) = await world.steps(run, LlmCallCompleted)
    assert [sketch.name for sketch in step.tool_calls] == ["lookup"]


# -- streams ----------------------------------------------------------------------------------------------


@BOTH
async def test_a_stream_passes_on_as_it_comes(world: World, path: str) -> None:
    """The first half is at the agent while the provider still holds the second back."""
    run = await run_of(world, path)
    async with (
        world.http(run) as http,
        http.stream("POST", path, json=asked("gated", stream=True)) as reply,
    ):
        arrived = ""
        pieces = reply.aiter_text()
        while WORDS[1] not in arrived:
            arrived += await anext(pieces)
        assert not world.upstream.gate.is_set()
        assert (await world.spent(run.workspace))[1] > 0
        world.upstream.gate.set()
        arrived += "".join([piece async for piece in pieces])
    assert text_in(arrived) == "".join(WORDS)
    assert await world.spent(run.workspace) == (COSTS[path], 0)


@pytest.mark.parametrize("asks", [False, True])
async def test_usage_is_always_counted_and_shown_only_if_asked_for(world: World, asks: bool) -> None:
    """A client that does not ask for usage gets the stream that it expects; it is counted all the same."""
    run = await run_of(world, CHAT)
    more = {"stream_options": {"include_usage": True}} if asks else {}
    stream = await streamed(world, run, CHAT, asked(**more))
    assert ('"prompt_tokens"' in stream) is asks
    assert stream.rstrip().endswith("data: [DONE]")
    assert world.upstream.seen[-1][2]["stream_options"] == {"include_usage": True}
    assert await world.settled(run.workspace) == CHAT_COST_MICROUSD


async def test_a_stream_without_usage_is_charged_whole(world: World) -> None:
    """Nobody knows what it cost: the reservation is charged, the answer is on record as unknown."""
    run = await run_of(world, CHAT)
    await streamed(world, run, CHAT, asked("mute"))
    (step,) = await world.steps(run, LlmCallCompleted)
    assert (step.usage, step.confidence) == (None, "unknown")
    assert await world.settled(run.workspace) == step.cost_microusd > CHAT_COST_MICROUSD


@BOTH
async def test_an_agent_that_hangs_up_leaves_nothing_reserved(world: World, path: str) -> None:
    """The provider is hung up on, the whole reservation is charged, and the step is on record."""
    run = await run_of(world, path)
    async with (
        world.http(run) as http,
        http.stream("POST", path, json=asked("gated", stream=True)) as reply,
    ):
        chunks = reply.aiter_text()  # held: an iterator that is dropped hangs up at once
        await anext(chunks)
        await asyncio.wait_for(world.upstream.begun.wait(), 10)
        reserved = (await world.spent(run.workspace))[1]
    assert await world.settled(run.workspace) == reserved > 0
    await asyncio.wait_for(world.upstream.hung_up.wait(), 10)

    async def recorded() -> list[Any]:
        return await world.steps(run, LlmCallFailed)

    assert [step.reason for step in await eventually(recorded)] == ["client_gone"]


async def test_a_whole_answer_is_kept_for_an_agent_that_hung_up(world: World) -> None:
    """Without streaming the provider generates to its end in any case: its answer is settled at what it cost
    and on record for the next attempt."""
    run = await run_of(world, CHAT)
    asking = asyncio.create_task(call(world, run, CHAT, asked("gated")))
    await asyncio.wait_for(world.upstream.begun.wait(), 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    world.upstream.gate.set()

    async def recorded() -> list[Any]:
        return await world.steps(run, LlmCallCompleted)

    await eventually(recorded)
    assert await world.settled(run.workspace) == CHAT_COST_MICROUSD


@BOTH
@pytest.mark.parametrize(("behaviour", "words"), [("cut", "cut off"), ("error", "too busy")])
async def test_a_stream_that_breaks_says_so_and_is_charged_whole(
    world: World, path: str, behaviour: str, words: str
) -> None:
    """The agent reads an error in its protocol's form after what had come; nothing stays reserved."""
    run = await run_of(world, path)
    stream = await streamed(world, run, path, asked(behaviour))
    assert text_in(stream) == WORDS[0] + WORDS[1]
    assert words in stream
    assert '"error"' in stream
    if path == MESSAGES:
        assert "event: error\n" in stream
    reserved = [e for e in await world.events("budget", run.workspace) if isinstance(e, Reserved)]
    assert await world.settled(run.workspace) == reserved[0].amount_microusd
    (step,) = await world.steps(run, LlmCallFailed)
    assert step.code in ("QD-GTW-007", "QD-GTW-008")


# -- when the provider says no ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("status", "becomes", "charged"),
    [(400, 400, False), (429, 429, False), (529, 529, False), (401, 502, False), (500, 502, True)],
)
async def test_what_a_provider_refuses_costs_nothing(
    world: World, path: str, status: int, becomes: int, charged: bool
) -> None:
    """4xx and "did not begin" are released; a 500 may have generated and is charged whole. The key that the
    provider quotes in its error reaches nobody."""
    run = await run_of(world, path)
    reply = await call(world, run, path, asked(str(status)))
    assert reply.status_code == becomes
    assert OPENAI_KEY not in reply.text
    assert ANTHROPIC_KEY not in reply.text
    if becomes == status:
        assert reply.headers["retry-after"] == "7"
    (step,) = await world.steps(run, LlmCallFailed)
    assert OPENAI_KEY not in step.message and ANTHROPIC_KEY not in step.message
    assert bool(await world.settled(run.workspace)) is charged


async def test_a_provider_that_is_down_costs_nothing(world: World) -> None:
    """Nobody listens at its address: 502, nothing reserved, nothing charged."""
    run = await world.run(await world.workspace(model="ollama:llama3"))
    reply = await call(world, run, CHAT, asked())
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "QD-GTW-006")
    assert await world.settled(run.workspace) == 0


@BOTH
async def test_a_proxys_page_becomes_an_error_that_sdks_read(world: World, path: str) -> None:
    """The status stays, the form is the protocol's."""
    run = await run_of(world, path)
    reply = await call(world, run, path, asked("html429"))
    assert reply.status_code == 429
    assert reply.json()["error"]["type"] == "rate_limit_error"
    assert await world.settled(run.workspace) == 0


async def test_without_a_key_nothing_leaves(world: World) -> None:
    """The vault's refusal is the agent's 403; what was reserved is released, and the step is on record."""
    run = await run_of(world, CHAT)
    world.client.workspace = run.workspace
    await world.client.ask(RevokeSecret(name="provider-openai"))
    before = world.upstream.calls
    reply = await call(world, run, CHAT, asked())
    assert reply.status_code == 403
    assert reply.json()["error"]["code"].startswith("QD-VLT")
    assert reply.headers["x-should-retry"] == "false"
    assert world.upstream.calls == before
    assert await world.settled(run.workspace) == 0
    assert len(await world.steps(run, LlmCallRefused)) == 1


async def test_what_is_no_llm_answer_is_charged(world: World) -> None:
    """A 200 that is not JSON may have cost something."""
    run = await run_of(world, CHAT)
    reply = await call(world, run, CHAT, asked("html"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "QD-GTW-007")
    assert await world.settled(run.workspace) > 0


# -- money ------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_over_budget_is_402_in_the_protocols_own_form(world: World, path: str, stream: bool) -> None:
    """Nothing leaves; the text names the scope, the money and what to do; SDKs are told not to try again; the
    refusal is on record twice, at the budget and as a step."""
    run = await run_of(world, path, limit_microusd=1_000)
    before = world.upstream.calls
    reply = await call(world, run, path, asked(max_tokens=4_000, stream=stream))
    assert reply.status_code == 402
    assert reply.headers["x-should-retry"] == "false"
    body = reply.json()
    message = body["error"]["message"]
    assert "budget of workspace would be overspent" in message
    assert "[QD-BUD-002]" in message
    assert body["error"]["type"] == ("insufficient_quota" if path == CHAT else "billing_error")
    assert (body.get("type") == "error") is (path == MESSAGES)
    assert world.upstream.calls == before
    assert [s.code for s in await world.steps(run, LlmCallRefused)] == ["QD-BUD-002"]
    refused = [e for e in await world.events("budget", run.workspace) if isinstance(e, ReservationRefused)]
    assert len(refused) == 1


async def test_64_callers_at_once_never_overspend(world: World) -> None:
    """Of 64 concurrent calls that each use all they may, as many pass as the budget holds; the bill at the
    provider stays below the limit, and nothing stays reserved."""
    limit_microusd = 15_000  # each call may cost about 2,400 micro-USD of output and 30 of input
    run = await run_of(world, CHAT, limit_microusd=limit_microusd)
    before = len(world.upstream.tokens)
    async with world.http(run) as http:
        calls = [http.post(CHAT, json=asked("full", user=f"caller {n}")) for n in range(64)]
        replies = await asyncio.gather(*calls)
    passed = [reply for reply in replies if reply.status_code == 200]
    assert {reply.status_code for reply in replies} == {200, 402}
    billed = world.upstream.tokens[before:]
    assert len(billed) == len(passed) >= 5
    # $0.15 and $0.60 for a million tokens: the provider's own sum, in hundredths of a micro-USD.
    bill = sum(15 * read + 60 * written for read, written in billed)
    assert bill <= limit_microusd * 100
    assert bill <= (await world.settled(run.workspace)) * 100 <= limit_microusd * 100


@pytest.mark.parametrize(("model", "status"), [("openai:gpt-4o-mini", 200), ("openai:gpt-4.5-preview", 400)])
async def test_an_image_is_bounded_by_the_context_window(world: World, model: str, status: int) -> None:
    """Its tokens have nothing to do with its bytes; where no window is known the call is refused."""
    run = await world.run(await world.workspace(model=model))
    content = [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "plain"},
    ]
    reply = await call(world, run, CHAT, {"messages": [{"role": "user", "content": content}]})
    assert reply.status_code == status, reply.text
    reserved = [e for e in await world.events("budget", run.workspace) if isinstance(e, Reserved)]
    assert [r.input_tokens_bound for r in reserved] == ([128_000] if status == 200 else [])


async def test_a_call_is_a_genai_span(world: World, tmp_path: Path) -> None:
    """With OpenTelemetry's own attribute names, in the trace that the caller named; its events carry it."""
    spans: list[ReadableSpan] = []

    class Kept(SpanExporter):
        def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
            spans.extend(batch)
            return SpanExportResult.SUCCESS

    base = settings_for(world.server, tmp_path)
    settings = GatewaySettings(
        **base.model_dump(), gateway_port=free_port(), provider_openai_url=f"{world.upstream.url}/v1"
    )
    service = await build(settings, await Bus.open("gateway", base, tracing=Tracing("gateway", Kept())))
    await service.start()
    run = await run_of(world, CHAT)
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {**run.bearer, "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    try:
        url = f"http://127.0.0.1:{settings.gateway_port}{CHAT}"
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.post(url, json=asked(), headers=headers)).status_code == 200
    finally:
        await service.stop()
    (chat,) = [span for span in spans if span.name == "chat openai:gpt-4o-mini"]
    marks = dict(chat.attributes or {})
    assert marks["gen_ai.operation.name"] == "chat"
    assert marks["gen_ai.request.model"] == "gpt-4o-mini"
    assert marks["gen_ai.usage.input_tokens"] == PROMPT_TOKENS
    assert marks["gen_ai.usage.output_tokens"] == COMPLETION_TOKENS
    assert chat.context is not None
    assert f"{chat.context.trace_id:032x}" == trace
    below = {span.name for span in spans if span.parent and span.parent.span_id == chat.context.span_id}
    assert {"ask budget.reserve", "ask vault.use", "ask budget.settle"} <= below
    store = JetStreamStore(world.client.wire.connection, "reader")
    (recorded,) = await store.load(Family("gateway", run.workspace))
    assert trace in recorded.meta.traceparent
    assert recorded.meta.actor == f"agent:{run.workspace}/ops/triage"


async def test_several_choices_are_reserved_for(world: World) -> None:
    """`n` answers may each use the limit."""
    run = await run_of(world, CHAT)
    await call(world, run, CHAT, asked(n=3, max_tokens=1_000))
    (reserved,) = [e for e in await world.events("budget", run.workspace) if isinstance(e, Reserved)]
    assert reserved.output_tokens_bound == 3_000


async def test_without_a_budget_service_nothing_leaves(world: World) -> None:
    """Fail closed: 503, and the provider is not called."""
    run = await run_of(world, CHAT)
    before = world.upstream.calls
    await world.stop_gateway()
    await world.start_gateway(reserve_timeout_s=0.2, settle_patience_s=0.2)
    await world.stop_budget()
    try:
        reply = await call(world, run, CHAT, asked())
    finally:
        await world.start_budget()
        await world.stop_gateway()
        await world.start_gateway()
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "QD-BUS-002")
    assert world.upstream.calls == before


# -- a later attempt --------------------------------------------------------------------------------------


@BOTH
async def test_a_later_attempt_is_served_from_the_record(world: World, path: str) -> None:
    """Each question that the lost attempt was answered is answered again, streamed or not, in its order, at
    no cost and without the provider; the next one is new."""
    run = await run_of(world, path)
    first = (await call(world, run, path, asked("plain"))).json()
    second = await streamed(world, run, path, asked("plain"))
    spent = await world.settled(run.workspace)
    calls = world.upstream.calls
    await world.end(run, "lost")
    again = await world.attempt(run.workspace, run.mission_id, not_run=run.run_id)
    assert text_in(await streamed(world, again, path, asked("plain"))) == "".join(WORDS)
    replayed = (await call(world, again, path, asked("plain"))).json()
    assert world.upstream.calls == calls
    assert await world.settled(run.workspace) == spent
    steps = await world.steps(run, LlmCallCompleted, LlmCallReplayed)
    assert [type(step).__name__ for step in steps] == ["LlmCallCompleted"] * 2 + ["LlmCallReplayed"] * 2
    assert [step.original_step_id for step in steps[2:]] == [step.step_id for step in steps[:2]]
    assert [step.run_id for step in steps] == [run.run_id] * 2 + [again.run_id] * 2
    # The first question was put as a whole and the second as a stream; in the second attempt it was reversed.
    assert text_of(replayed) == text_in(second) == text_of(first)
    await call(world, again, path, asked("plain"))
    assert world.upstream.calls == calls + 1


def text_of(answer: dict[str, Any]) -> str:
    choices = answer.get("choices")
    return str(choices[0]["message"]["content"] if choices else answer["content"][0]["text"])


async def test_numbers_survive_a_restart_of_the_gateway(world: World) -> None:
    """In the same attempt an equal question is a new one, also for a gateway that has forgotten the first."""
    run = await run_of(world, CHAT)
    await call(world, run, CHAT, asked())
    await world.stop_gateway()
    await world.start_gateway()
    calls = world.upstream.calls
    await call(world, run, CHAT, asked())
    assert world.upstream.calls == calls + 1
    assert [step.occurrence for step in await world.steps(run, LlmCallCompleted)] == [0, 1]


async def test_a_failed_call_leaves_its_number_to_the_next(world: World) -> None:
    """A question whose first try failed is found by the next attempt where its answer is."""
    run = await run_of(world, CHAT)
    world.upstream.gate.set()
    await call(world, run, CHAT, asked("429"))
    await call(world, run, CHAT, asked("429"))
    assert [step.occurrence for step in await world.steps(run, LlmCallFailed)] == [0, 0]


# -- what is turned away ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "QD-GTW-003"),
        (b"[1]", 400, "QD-GTW-003"),
        (b'{"messages": []}', 400, "QD-GTW-003"),
        (b'{"messages": [{"role": "user", "content": NaN}]}', 400, "QD-GTW-003"),
        (b"[" * 100_000, 400, "QD-GTW-003"),
        (b'{"messages": [{"role": "user"}], "max_tokens": -1}', 400, "QD-GTW-003"),
        (b'{"messages": [{"role": "user"}], "max_tokens": true}', 400, "QD-GTW-003"),
        (b'{"messages": [{"role": "user"}], "service_tier": "priority"}', 400, "QD-GTW-010"),
        (b'{"messages": [{"role": "user"}], "models": ["dearer"]}', 400, "QD-GTW-010"),
        (b'{"messages": [{"role": "user"}], "tools": [{"type": "web_search"}]}', 400, "QD-GTW-010"),
        (b" " * ((16 << 20) + 1), 413, "QD-GTW-002"),
    ],
)
async def test_hostile_bodies_are_turned_away(
    world: World, path: str, body: bytes, status: int, code: str
) -> None:
    """Malformed, oversized, or with a cost that can't be bounded: refused in the protocol's form, and nothing
    is reserved or sent."""
    run = await run_of(world, path)
    before = world.upstream.calls
    async with world.http(run) as http:
        reply = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.headers["x-should-retry"] == "false"
    assert world.upstream.calls == before
    assert await world.spent(run.workspace) == (0, 0)


async def test_half_a_surrogate_pair_passes(world: World) -> None:
    """Valid JSON that is not valid UTF-8 text must not break the edge."""
    run = await run_of(world, CHAT)
    async with world.http(run) as http:
        content = b'{"messages": [{"role": "user", "content": "\\ud83d"}]}'
        reply = await http.post(CHAT, content=content)
    assert reply.status_code == 200
    assert world.upstream.seen[-1][2]["messages"][0]["content"] == "\ud83d"


@pytest.mark.parametrize(
    ("model", "path", "code"),
    [
        ("openai:nobody-knows-this", CHAT, "QD-GTW-004"),
        ("openai:gpt-4o-mini", MESSAGES, "QD-GTW-005"),
        ("recorded:steady", CHAT, "QD-GTW-019"),
        ("recorded:steady@" + "0" * 64, CHAT, "QD-GTW-019"),
    ],
)
async def test_a_model_that_can_not_be_priced_or_called_is_refused_on_record(
    world: World, model: str, path: str, code: str
) -> None:
    """No price, no provider of that protocol, no transcript: the agent reads why, and the journal has it."""
    workspace = await world.workspace()
    world.client.workspace = workspace
    run = await world.run(workspace, model=model)
    reply = await call(world, run, path, asked())
    assert reply.json()["error"]["code"] == code
    assert reply.status_code in (400, 403)
    assert [step.code for step in await world.steps(run, LlmCallRefused)] == [code]


@BOTH
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer nonsense"}, {"x-api-key": "qdm1.e30.e30"}])
async def test_without_a_good_token_nobody_gets_in(world: World, path: str, header: dict[str, str]) -> None:
    """401 in the protocol's form, with a text that says what is missing."""
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
        reply = await http.post(path, json=asked(), headers=header)
    assert reply.status_code == 401
    error = reply.json()["error"]
    assert error["type"] == "authentication_error"
    assert "token" in error["message"]


async def test_a_token_dies_with_its_run(world: World) -> None:
    """The same token that worked is refused once the run is over, and the text says so."""
    run = await run_of(world, CHAT)
    assert (await call(world, run, CHAT, asked())).status_code == 200
    await world.end(run)
    reply = await call(world, run, CHAT, asked())
    assert reply.status_code == 401
    assert "is over" in reply.json()["error"]["message"]


async def test_models_are_listed_in_each_clients_form(world: World) -> None:
    """One model under the name that agents use and its own; no token, no list."""
    run = await run_of(world, CHAT)
    async with world.http(run) as http:
        chat = (await http.get("/v1/models")).json()
        messages = (await http.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
    assert [model["id"] for model in chat["data"]] == ["mission", "openai:gpt-4o-mini"]
    assert messages["data"][0]["type"] == "model"
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
        assert (await http.get("/v1/models")).status_code == 401
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/v1/nothing")).json()["error"]["code"] == "QD-GTW-025"
        assert (await http.get(CHAT)).status_code == 405


# -- the recorded provider --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_a_transcript_answers_at_a_real_models_price(world: World, path: str, stream: bool) -> None:
    """Its turns come by the number of assistant messages, its cost is that of the model it names."""
    turns = [{"text": "Looking.", "tool_calls": [{"name": "look", "arguments": {"q": 1}}]}, {"text": "Done."}]
    model = await world.transcript(turns=turns)
    run = await world.run(await world.workspace(), model=model)
    reply = await call(world, run, path, asked(max_tokens=50))
    assert "Looking." in reply.text
    assert '"look"' in reply.text
    body = asked(max_tokens=50)
    body["messages"] += [{"role": "assistant", "content": "Looking."}, {"role": "user", "content": "go on"}]
    if stream:
        assert text_in(await streamed(world, run, path, body)) == "Done."
    else:
        assert text_of((await call(world, run, path, body)).json()) == "Done."
    first, second = await world.steps(run, LlmCallCompleted)
    assert (first.provider, first.model) == ("recorded", "recorded:steady")
    assert [sketch.name for sketch in first.tool_calls] == ["look"]
    assert await world.settled(run.workspace) == first.cost_microusd + second.cost_microusd > 0
