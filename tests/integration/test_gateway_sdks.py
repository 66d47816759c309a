"""The real SDKs against the gateway, with nothing but a base URL: OpenAI's and Anthropic's, synchronous, as
most agents use them."""

import asyncio
from collections.abc import AsyncIterator

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from quarterdeck.testkit.bus import throwaway_server
from tests.integration.gateway_upstream import COMPLETION_TOKENS, WORDS
from tests.integration.gateway_world import Run, World, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
SAID = "".join(WORDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("gateway")
    async with throwaway_server(directory) as server, running(server, directory) as world:
        yield world


def chat(world: World, run: Run) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{world.url}/v1", api_key=run.token)


def claude(world: World, run: Run) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=world.url, api_key=run.token)


async def test_the_openai_sdk(world: World) -> None:
    """A call, a stream, a tool call and the list of models, typed as the SDK types them."""
    run = await world.run()

    def program() -> None:
        with chat(world, run) as client:
            whole = client.chat.completions.create(
                model="mission", messages=[{"role": "user", "content": "plain"}]
            )
            assert whole.choices[0].message.content == SAID
            stream = client.chat.completions.create(
                model="mission", messages=[{"role": "user", "content": "plain"}], stream=True
            )
            said = [chunk.choices[0].delta.content or "" for chunk in stream]
            assert "".join(said) == SAID
            tools = client.chat.completions.create(
                model="mission",
                messages=[{"role": "user", "content": "tool"}],
                tools=[{"type": "function", "function": {"name": "lookup", "parameters": {}}}],
            )
            calls = tools.choices[0].message.tool_calls
            assert calls is not None
            assert calls[0].type == "function"
            assert calls[0].function.name == "lookup"
            assert next(iter(client.models.list())).id == "mission"

    await asyncio.to_thread(program)
    assert (await world.settled(run.workspace)) > 0


async def test_the_anthropic_sdk(world: World) -> None:
    """A message and a stream, with the final message that the SDK puts together from its events."""
    run = await world.run(await world.workspace(model="anthropic:claude-sonnet-4-5"))

    def program() -> None:
        with claude(world, run) as client:
            whole = client.messages.create(
                model="mission", max_tokens=100, messages=[{"role": "user", "content": "plain"}]
            )
            assert whole.content[0].type == "text"
            assert whole.content[0].text == SAID
            with client.messages.stream(
                model="mission", max_tokens=100, messages=[{"role": "user", "content": "plain"}]
            ) as stream:
                assert "".join(stream.text_stream) == SAID
                final = stream.get_final_message()
            assert final.usage.output_tokens == COMPLETION_TOKENS
            assert final.stop_reason == "end_turn"

    await asyncio.to_thread(program)
    assert (await world.settled(run.workspace)) > 0


async def test_sdks_stop_at_the_budget(world: World) -> None:
    """402 ends both at the first try, with the budget's own words; nothing reaches the provider."""
    workspace = await world.workspace(limit_microusd=10)
    run = await world.run(workspace)
    other = await world.run(await world.workspace(limit_microusd=10, model="anthropic:claude-sonnet-4-5"))
    calls = world.upstream.calls

    def program() -> None:
        with chat(world, run) as client, pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model="mission", messages=[{"role": "user", "content": "plain"}])
        assert refused.value.status_code == 402
        assert "would be overspent" in refused.value.message
        with claude(world, other) as client, pytest.raises(anthropic.APIStatusError) as stopped:
            client.messages.create(
                model="mission", max_tokens=100, messages=[{"role": "user", "content": "plain"}]
            )
        assert stopped.value.status_code == 402
        assert "would be overspent" in stopped.value.message

    await asyncio.to_thread(program)
    assert world.upstream.calls == calls
    refused = await world.events("gateway", run.workspace)
    assert len(refused) == 1, "the SDK did not try again"


async def test_sdks_see_a_stream_that_breaks(world: World) -> None:
    """An error in mid-stream raises in both: nobody mistakes half an answer for a whole one."""
    run = await world.run()
    other = await world.run(await world.workspace(model="anthropic:claude-sonnet-4-5"))

    def program() -> None:
        with chat(world, run) as client, pytest.raises(openai.APIError, match="cut off"):
            list(
                client.chat.completions.create(
                    model="mission", messages=[{"role": "user", "content": "cut"}], stream=True
                )
            )
        with (
            claude(world, other) as client,
            pytest.raises(anthropic.APIError, match="cut off"),
            client.messages.stream(
                model="mission", max_tokens=100, messages=[{"role": "user", "content": "cut"}]
            ) as stream,
        ):
            stream.until_done()

    await asyncio.to_thread(program)


async def test_a_recorded_model_drives_both_sdks(world: World) -> None:
    """The streams that are made from a transcript are whole to the SDKs' own parsers, tool calls included."""
    call = {"name": "look", "arguments": {"q": "rain", "text": "x" * 700}}
    model = await world.transcript(turns=[{"text": "Looking. " * 60, "tool_calls": [call]}])
    run = await world.run(await world.workspace(model=model))

    def program() -> None:
        with (
            chat(world, run) as client,
            client.chat.completions.stream(
                model="mission", messages=[{"role": "user", "content": "go"}]
            ) as stream,
        ):
            found = stream.get_final_completion().choices[0].message.tool_calls
        assert found is not None
        assert "rain" in found[0].function.arguments
        with (
            claude(world, run) as client,
            client.messages.stream(
                model="mission", max_tokens=1_000, messages=[{"role": "user", "content": "go"}]
            ) as events,
        ):
            final = events.get_final_message()
        assert final.content[0].type == "text"
        assert final.content[0].text == "Looking. " * 60
        assert final.content[1].type == "tool_use"
        assert final.content[1].input == call["arguments"]

    await asyncio.to_thread(program)


async def test_a_bearer_of_anthropics_kind_gets_in(world: World) -> None:
    """Anthropic's clients may send a token as `Authorization` with some other key in `x-api-key`."""
    run = await world.run()
    async with httpx.AsyncClient(base_url=world.url, headers={**run.bearer, "x-api-key": "sk-other"}) as http:
        assert (await http.get("/v1/models")).status_code == 200
