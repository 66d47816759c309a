"""Tools and secrets through the gateway: approvals, credentials, and acting once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import mcp_types as types
import pytest
import pytest_asyncio
from mcp.client import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from quarterdeck.contracts.approval import ApprovalRequested, DecideApproval, GrantRedeemed, Outcome
from quarterdeck.contracts.gateway import ToolExecuted, ToolProposed, ToolReturned, TrajectoryClosed
from quarterdeck.contracts.vault import AccessDenied, LeaseGranted, RevokeSecret
from quarterdeck.testkit.bus import throwaway_server
from quarterdeck.testkit.eventually import eventually
from tests.integration.gateway_upstream import Desk
from tests.integration.gateway_world import (
    ANTHROPIC_KEY,
    DESK_TOKEN,
    FETCHED,
    OPENAI_KEY,
    Run,
    World,
    running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
ARGUMENTS = {"title": "Rain in Seattle", "pages": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("gateway")
    async with throwaway_server(directory) as server, running(server, directory) as world:
        yield world


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def fresh(world: World) -> None:
    """A desk that has seen nothing, and a gateway that is up whatever became of the test before."""
    vars(world.desk).update(vars(Desk()) | {"url": world.desk.url})
    if world.gateway is None:
        await world.start_gateway()


@contextlib.asynccontextmanager
async def mcp(world: World, run: Run, mode: Any = "auto") -> AsyncIterator[McpClient]:
    """The real MCP client."""
    async with httpx2.AsyncClient(headers=run.bearer, trust_env=False, timeout=60) as http:
        transport = streamable_http_client(f"{world.url}/mcp", http_client=http)
        async with McpClient(transport, mode=mode) as client:
            yield client


async def use(world: World, run: Run, tool: str = "publish", **arguments: Any) -> tuple[str, bool]:
    """One call by the real client: its text, and whether it is an error."""
    async with mcp(world, run) as client:
        result = await client.call_tool(tool, arguments or ARGUMENTS)
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text, result.is_error


async def run_with(world: World, *tools: Any) -> Run:
    return await world.run(await world.workspace(tools=tools or (world.tool(),)))


async def asked_for(world: World, run: Run, count: int = 1) -> list[str]:
    """The approvals that wait, once there are this many."""

    async def requested() -> list[str]:
        events = await world.events("approval", run.workspace)
        found = [event.approval_id for event in events if isinstance(event, ApprovalRequested)]
        return found if len(found) >= count else []

    return await eventually(requested)


async def decide(world: World, run: Run, outcome: Outcome, note: str = "") -> str:
    """What a person does, as soon as there is something to decide."""
    approval_id = (await asked_for(world, run))[-1]
    world.client.workspace = run.workspace
    await world.client.decide(DecideApproval(approval_id=approval_id, outcome=outcome, note=note))
    return approval_id


async def decided(world: World, run: Run, outcome: Outcome, note: str = "") -> tuple[str, bool]:
    """A call of `publish`, and a person's decision while it waits."""
    calling = asyncio.create_task(use(world, run))
    await decide(world, run, outcome, note)
    return await calling


# -- the way of a tool call -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_mcp_client_lists_and_calls_tools(world: World, mode: str) -> None:
    """The crew's tools with their schemas; a call that the policy lets pass is proposed, executed and
    returned on record, without a person."""
    lookup = world.tool("lookup", method="GET", credential=None)
    run = await run_with(world, world.tool(), lookup)
    async with mcp(world, run, mode) as client:
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == ["publish", "lookup"]
        assert listed[1].input_schema["required"] == ["title"]
        result = await client.call_tool("lookup", {"title": "a b&c", "pages": 3})
    assert result.is_error is False
    (method, headers, query, _) = world.desk.requests[-1]
    assert (method, query) == ("GET", "title=a+b%26c&pages=3")
    steps = await world.steps(run, ToolProposed, ToolExecuted, ToolReturned)
    assert [type(step).__name__ for step in steps] == ["ToolProposed", "ToolExecuted", "ToolReturned"]
    assert {step.action_id for step in steps} == {headers["idempotency-key"]}
    stored = await world.client.artifacts.get(steps[2].result_sha256)
    assert stored.decode() == result.content[0].text  # type: ignore[union-attr]
    assert await world.client.artifacts.get(steps[0].arguments_sha256) == b'{"pages":3,"title":"a b&c"}'


async def test_an_approved_call_acts_with_the_credential(world: World) -> None:
    """Held until a person says yes; then once, with the brokered credential, under the approval's own id."""
    run = await run_with(world)
    text, is_error = await decided(world, run, "approved")
    assert (text, is_error) == ('{"published":1,"padding":""}', False)
    ((method, headers, _, body),) = world.desk.requests
    assert (method, body) == ("POST", b'{"title":"Rain in Seattle","pages":2}')
    assert headers["authorization"] == f"Bearer {DESK_TOKEN}"
    (approval_id,) = await asked_for(world, run)
    assert headers["idempotency-key"] == approval_id
    redeemed = [e for e in await world.events("approval", run.workspace) if isinstance(e, GrantRedeemed)]
    assert [event.execution_id for event in redeemed] == [approval_id]
    leased = [e for e in await world.events("vault", run.workspace) if isinstance(e, LeaseGranted)]
    assert [(lease.name, lease.use, lease.run_id) for lease in leased] == [("desk", "brokered", run.run_id)]
    (executed,) = await world.steps(run, ToolExecuted)
    assert (executed.status_code, executed.credential, executed.lease_id) == (201, "desk", leased[0].lease_id)


async def test_a_denied_call_never_leaves(world: World) -> None:
    """The agent reads who said no and why, the endpoint hears nothing, the denial is on record."""
    run = await run_with(world)
    text, is_error = await decided(world, run, "denied", "not before Monday")
    assert is_error
    assert text.startswith("DENIED")
    assert "user:ada said no: not before Monday" in text
    assert world.desk.requests == []
    (returned,) = await world.steps(run, ToolReturned)
    assert (returned.outcome, await world.steps(run, ToolExecuted)) == ("denied", [])


async def test_nobody_answers_in_time(world: World) -> None:
    """The deadline denies."""
    run = await run_with(world, world.tool("quick"))
    text, is_error = await use(world, run, "quick")
    assert is_error
    assert text.startswith("DENIED nobody answered in time")
    assert world.desk.requests == []


async def test_a_gateway_stops_at_once_while_people_are_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop does not wait for a person; the question stands, and the repeat after it is that action."""
    monkeypatch.setattr("services.gateway.app.DRAIN_S", 100.0)
    run = await run_with(world)
    calling = asyncio.create_task(use(world, run))
    await asked_for(world, run)
    await asyncio.wait_for(world.stop_gateway(), 50)
    await asyncio.gather(calling, return_exceptions=True)
    await world.start_gateway()
    text, is_error = await decided(world, run, "approved")
    assert not is_error, text
    assert len(await asked_for(world, run)) == 1


async def test_people_are_not_flooded(world: World) -> None:
    """One run has at most 32 calls waiting; the next is turned down without asking anybody."""
    run = await run_with(world)
    async with mcp(world, run) as client:
        calls = [
            asyncio.create_task(client.call_tool("publish", {"title": f"report {n}"})) for n in range(33)
        ]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        (turned_down,) = done
        assert "QD-GTW-026" in turned_down.result().content[0].text  # type: ignore[union-attr]
        assert len(await asked_for(world, run, 32)) == 32
        await world.end(run)
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_two_equal_calls_at_once_are_two_actions(world: World) -> None:
    """Each asks a person of its own; approving one does not approve the other."""
    run = await run_with(world)
    calls = [asyncio.create_task(use(world, run)) for _ in range(2)]
    first, second = await asked_for(world, run, 2)
    world.client.workspace = run.workspace
    await world.client.decide(DecideApproval(approval_id=first, outcome="approved"))
    await world.client.decide(DecideApproval(approval_id=second, outcome="denied"))
    outcomes = await asyncio.gather(*calls)
    assert sorted(is_error for _, is_error in outcomes) == [False, True]
    assert list(world.desk.published) == [first]


# -- once -------------------------------------------------------------------------------------------------


async def test_a_gateway_killed_in_mid_call_acts_once(world: World) -> None:
    """Killed after the grant was redeemed and the request had left, before it returned: the repeat asks
    nobody again and sends the same Idempotency-Key, so the endpoint has done it once."""
    run = await run_with(world)
    await world.stop_gateway()
    world.desk.gate.clear()
    async with world.gateway_process() as process:
        calling = asyncio.create_task(use(world, run))
        approval_id = await decide(world, run, "approved")
        await asyncio.wait_for(world.desk.begun.wait(), 10)
        process.kill()
        await asyncio.gather(calling, return_exceptions=True)
    world.desk.gate.set()
    await world.start_gateway()
    text, is_error = await use(world, run)
    assert not is_error, text
    keys = [headers["idempotency-key"] for _, headers, _, _ in world.desk.requests]
    assert keys == [approval_id] * 2
    assert len(world.desk.published) == 1
    assert len(await asked_for(world, run)) == 1
    steps = await world.steps(run, ToolProposed, ToolExecuted, ToolReturned)
    assert [type(step).__name__ for step in steps] == ["ToolProposed", "ToolExecuted", "ToolReturned"]


async def test_a_later_attempt_gets_the_recorded_result(world: World) -> None:
    """What the lost attempt did is not done again: same result, no request, no person. A second call of the
    same is new."""
    run = await run_with(world)
    text, _ = await decided(world, run, "approved")
    await world.end(run, "lost")
    again = await world.attempt(run.workspace, run.mission_id, not_run=run.run_id)
    assert await use(world, again) == (text, False)
    assert len(world.desk.requests) == 1
    assert len(await asked_for(world, run)) == 1
    calling = asyncio.create_task(use(world, again))
    assert len(await asked_for(world, run, 2)) == 2
    await decide(world, run, "denied")
    assert (await calling)[1]
    assert len(world.desk.requests) == 1


async def test_an_agent_that_hung_up_gets_the_result_it_waited_for(world: World) -> None:
    """Its repeat joins the same action: one question to a person, one act."""
    run = await run_with(world)
    calling = asyncio.create_task(use(world, run))
    await asked_for(world, run)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    text, is_error = await decided(world, run, "approved")
    assert not is_error, text
    assert len(await asked_for(world, run)) == 1
    assert len(world.desk.requests) == 1


async def test_a_run_that_is_over_does_not_act(world: World) -> None:
    """The run ends while a person thinks: the call is an error, and the late yes starts nothing."""
    run = await run_with(world)
    calling = asyncio.create_task(use(world, run))
    (approval_id,) = await asked_for(world, run)
    await world.end(run, "lost")
    text, is_error = await calling
    assert is_error
    assert "run" in text
    world.client.workspace = run.workspace
    await world.client.decide(DecideApproval(approval_id=approval_id, outcome="approved"))
    assert world.desk.requests == []
    assert await world.steps(run, ToolExecuted) == []


# -- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("lookup", {"pages": 1}, "'title' is a required property"),
        ("lookup", {"title": 7}, "title: 7 is not of type 'string'"),
        ("lookup", {"title": "a", "more": 1}, "Additional properties"),
        ("nothing", {}, "no tool 'nothing'"),
        ("faraway", {"title": "a"}, "may not be called"),
        ("file", {"title": "a"}, "may not be called"),
    ],
)
async def test_what_may_not_be_called_is_not(
    world: World, tool: str, arguments: dict[str, Any], said: str
) -> None:
    """Arguments that don't fit, a tool that there isn't, a URL that is neither https nor loopback: the agent
    reads what is wrong, and nothing is proposed or sent."""
    run = await run_with(
        world,
        world.tool("lookup"),
        world.tool("faraway", url="http://192.0.2.1/reports"),
        world.tool("file", url="file:///etc/passwd"),
    )
    async with mcp(world, run) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert said in result.content[0].text  # type: ignore[union-attr]
    assert world.desk.requests == []
    assert await world.steps(run, ToolProposed) == []


async def test_an_endpoint_that_fails_is_an_error_to_the_agent(world: World) -> None:
    """The status is in the text; it is executed all the same."""
    run = await run_with(world, world.tool("lookup"))
    world.desk.status = 503
    text, is_error = await use(world, run, "lookup")
    assert (text[:10], is_error) == ("HTTP 503: ", True)
    (executed,) = await world.steps(run, ToolExecuted)
    assert executed.status_code == 503


async def test_redirects_are_not_followed(world: World) -> None:
    """The credential goes to the declared host or nowhere."""
    run = await run_with(world, world.tool("lookup"))
    world.desk.status, world.desk.location = 307, f"{world.desk.url}/reports?elsewhere=1"
    text, is_error = await use(world, run, "lookup")
    assert (text[:8], is_error) == ("HTTP 307", True)
    assert len(world.desk.requests) == 1


async def test_an_endpoint_that_is_down_was_sent_nothing(world: World) -> None:
    """The agent reads that nothing left; there is no execution on record."""
    run = await run_with(world, world.tool("lookup", url="http://127.0.0.1:1/", credential=None))
    text, is_error = await use(world, run, "lookup")
    assert is_error
    assert "QD-GTW-016" in text
    assert await world.steps(run, ToolExecuted) == []


async def test_a_slow_endpoint_may_have_acted(world: World) -> None:
    """Past the tool's time-out the agent reads that it is not known, and the key to look it up by."""
    run = await run_with(world, world.tool("lookup", timeout_ms=200))
    world.desk.gate.clear()
    text, is_error = await use(world, run, "lookup")
    assert is_error
    assert "it may have acted" in text
    assert next(iter(world.desk.published)) in text


async def test_a_long_answer_is_cut(world: World) -> None:
    """At most 256 KiB reach the agent, and it is told."""
    run = await run_with(world, world.tool("lookup"))
    world.desk.padding = 400_000
    text, _ = await use(world, run, "lookup")
    assert len(text.encode()) < 257 << 10
    assert "cut off" in text


async def test_a_credential_goes_only_where_the_vault_allows(world: World) -> None:
    """Another host than the secret's: denied by the vault, on record, and nothing is sent."""
    run = await run_with(world, world.tool("lookup", url=f"{world.upstream.url}/reports"))
    calls = world.upstream.calls
    text, is_error = await use(world, run, "lookup")
    assert is_error
    assert text.startswith("DENIED")
    assert "QD-VLT" in text
    assert world.upstream.calls == calls
    denied = [e for e in await world.events("vault", run.workspace) if isinstance(e, AccessDenied)]
    assert [(event.name, event.run_id) for event in denied] == [("desk", run.run_id)]


async def test_the_tool_endpoint_wants_a_token_and_keeps_no_session(world: World) -> None:
    """401 without one; 405 for what only sessions need."""
    run = await run_with(world)
    async with httpx.AsyncClient(base_url=world.url, trust_env=False) as http:
        assert (await http.post("/mcp", json={})).status_code == 401
        assert (await http.get("/mcp", headers=run.bearer)).status_code == 405


# -- secrets ----------------------------------------------------------------------------------------------


async def test_a_secret_is_fetched_with_an_intent(world: World) -> None:
    """The value and when it expires, for this run, on record with what it is for; not to be cached."""
    run = await run_with(world)
    async with world.http(run) as http:
        reply = await http.post("/secrets/pass", json={"intent": "sign the report"})
    assert reply.status_code == 200
    assert reply.json()["value"] == FETCHED
    assert reply.json()["expires_at"].endswith("Z")
    assert reply.headers["cache-control"] == "no-store"
    leased = [e for e in await world.events("vault", run.workspace) if isinstance(e, LeaseGranted)]
    assert [(lease.use, lease.intent) for lease in leased] == [("fetched", "sign the report")]


@pytest.mark.parametrize(
    ("method", "name", "body", "status"),
    [
        ("GET", "pass", None, 405),
        ("POST", "pass", {}, 400),
        ("POST", "pass", {"intent": "  "}, 400),
        ("POST", "pass", {"intent": "x" * 501}, 400),
        ("POST", "Bad_Name", {"intent": "x"}, 400),
        ("POST", "desk", {"intent": "see it"}, 403),
        ("POST", "nothing", {"intent": "see it"}, 403),
    ],
)
async def test_a_secret_is_not_given_away(
    world: World, method: str, name: str, body: dict[str, str] | None, status: int
) -> None:
    """Without an intent, for a brokered secret, or for one that there isn't: no value, and the reason."""
    run = await run_with(world)
    async with world.http(run) as http:
        reply = await http.request(method, f"/secrets/{name}", json=body)
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    assert reply.json()["error"]["message"]


async def test_a_revoked_secret_is_refused_at_once(world: World) -> None:
    """No restart, no cache: the next request is denied."""
    run = await run_with(world)
    async with world.http(run) as http:
        assert (await http.post("/secrets/pass", json={"intent": "a"})).status_code == 200
        world.client.workspace = run.workspace
        await world.client.ask(RevokeSecret(name="pass"))
        assert (await http.post("/secrets/pass", json={"intent": "b"})).status_code == 403


def holding(directory: Path, found: Callable[[bytes], bool]) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and found(path.read_bytes())]


async def test_no_credential_is_ever_written_or_told(world: World) -> None:
    """An endpoint echoes its credential in four encodings, a provider quotes its key: the agent sees neither,
    and no file of the bus, the journal or the artifacts holds a secret. A marker shows that the search finds
    what is there."""
    run = await run_with(world, world.tool("lookup"))
    world.desk.echoes = True
    text, is_error = await use(world, run, "lookup", title="marker-7391")
    assert not is_error
    assert text.count("[secret removed]") == 4
    async with world.http(run) as http:
        chat = {"messages": [{"role": "user", "content": "401"}]}
        refused = await http.post("/v1/chat/completions", json=chat)
        fetched = await http.post("/secrets/pass", json={"intent": "sign"})
    assert fetched.status_code == 200
    for secret in (DESK_TOKEN, OPENAI_KEY, ANTHROPIC_KEY, FETCHED):
        plain = secret.encode()
        assert secret not in text + refused.text
        assert plain.hex() not in text + refused.text

        def leaks(content: bytes, plain: bytes = plain) -> bool:
            return plain in content or plain.hex().encode() in content

        assert holding(world.directory, leaks) == []
    assert holding(world.directory, lambda content: b"marker-7391" in content)


async def test_a_mission_that_is_over_closes_its_trajectory(world: World) -> None:
    """What was only needed to answer later attempts is dropped, on record."""
    run = await run_with(world, world.tool("lookup"))
    await use(world, run, "lookup")
    await world.end(run)

    async def closed() -> list[Any]:
        return await world.steps(run, TrajectoryClosed)

    assert len(await eventually(closed)) == 1
