"""The mission service on a real nats-server, told by hand what a sandbox would tell it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.client import Client
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.mission import (
    Agent,
    Artifact,
    Authenticate,
    Crew,
    DeclareWorkspace,
    IssueToken,
    MissionRefused,
    ObserveRun,
    RunRequested,
    SubmitMission,
)
from quarterdeck.contracts.sandbox import StartSandbox
from quarterdeck.kernel.errors import Refused
from quarterdeck.testkit.bus import settings_for
from quarterdeck.testkit.eventually import eventually
from services.mission.app import build
from services.mission.settings import Settings


@pytest.fixture
async def client(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a running mission service, in a workspace with one crew."""
    service = await build(
        Settings(**settings_for(server, tmp_path).model_dump(), mission_token_ttl_ms=60_000)
    )
    await service.start()
    try:
        async with Client.open(url=server.url, workspace="acme", actor="user:ada") as client:
            program = await client.artifacts.put(b"a program")
            agent = Agent(
                name="writer", program=Artifact(name="p.tar", sha256=program, size_bytes=9), argv=("python",)
            )
            await client.ask(DeclareWorkspace(crews=(Crew(name="ops", agents=(agent,)),)))
            yield client
    finally:
        await service.stop()


async def the_next(client: Client, mission_id: str, what: type[Any]) -> Recorded:
    async for recorded in client.events(f"evt.*.acme.{mission_id}.>"):
        if isinstance(recorded.event, what):
            return recorded
    raise AssertionError("unreachable")


async def test_any_nats_client_can_publish_a_mission(client: Client) -> None:
    """A bare publish of JSON becomes a mission; the same id again does not become a second."""
    request = b'{"id": "from-anywhere", "crew": "ops", "goal": "say hello"}'
    jetstream = client.wire.connection.jetstream()
    for _ in range(2):
        await jetstream.publish("cmd.mission.submit.acme", request)
    run = await the_next(client, "from-anywhere", RunRequested)
    stop = ObserveRun(mission_id="from-anywhere", run_id=run.event.run_id, outcome="succeeded")  # type: ignore[attr-defined]
    await client.wire.order("acme", stop)
    kinds = [type(recorded.event).__name__ async for recorded in client.follow("from-anywhere")]
    assert kinds == ["MissionAccepted", "RunRequested", "RunEnded", "MissionCompleted"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"not json at all \xff", "QD-MIS-017"),
        (b'{"crew": "ops", "goal": "x", "budgetmicrousd": 5}', "QD-MIS-017"),
        (b'{"crew": "ops", "goal": ""}', "QD-MIS-017"),
        (b'{"crew": "strangers", "goal": "x"}', "QD-MIS-005"),
    ],
    ids=["not-json", "unknown-field", "no-goal", "unknown-crew"],
)
async def test_a_bad_request_is_refused_on_record(client: Client, content: bytes, code: str) -> None:
    """Whatever is published, its sender's refusal stands in the log under the message's id."""
    await client.wire.publish_durably("cmd.mission.submit.acme", content, {"ce-id": "bad-1"})
    refused = (await the_next(client, "bad-1", MissionRefused)).event
    assert isinstance(refused, MissionRefused)
    assert refused.code == code


async def test_an_unknown_workspace_is_refused(client: Client) -> None:
    """A workspace that nobody declared takes no mission, and its sender hears why."""
    client.workspace = "nowhere"
    with pytest.raises(Refused, match="QD-MIS-002"):
        await client.submit(SubmitMission(crew="ops", goal="x"))


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("empty.csv", b"  \n", "QD-MIS-009"),
        ("binary.csv", b"a,b\n\x00\x01", "QD-MIS-009"),
        ("latin.csv", b"a,b\n\xe9,1", "QD-MIS-009"),
        ("header.csv", b"a,b\n", "QD-MIS-009"),
    ],
)
async def test_an_unusable_input_is_refused(client: Client, name: str, content: bytes, code: str) -> None:
    """A CSV that is empty, binary or without a row never reaches an agent."""
    sha256 = await client.artifacts.put(content)
    artifact = Artifact(name=name, sha256=sha256, size_bytes=len(content))
    with pytest.raises(Refused, match=code):
        await client.submit(SubmitMission(crew="ops", goal="x", inputs=(artifact,)))


async def test_an_input_that_is_not_stored_is_refused(client: Client) -> None:
    """A digest without bytes behind it is told before anything runs."""
    artifact = Artifact(name="a.csv", sha256="f" * 64, size_bytes=3)
    with pytest.raises(Refused, match="QD-MIS-008"):
        await client.submit(SubmitMission(crew="ops", goal="x", inputs=(artifact,)))


async def test_two_inputs_of_one_name_are_refused(client: Client) -> None:
    """One would hide the other from the agent."""
    sha256 = await client.artifacts.put(b"a,b\n1,2\n")
    artifact = Artifact(name="a.csv", sha256=sha256, size_bytes=8)
    with pytest.raises(Refused, match="QD-MIS-019"):
        await client.submit(SubmitMission(crew="ops", goal="x", inputs=(artifact, artifact)))


async def test_an_id_that_cannot_stand_in_a_subject_is_refused(client: Client) -> None:
    """A request without an id of its own takes its message's, which any client may have chosen."""
    with pytest.raises(Refused, match="QD-MIS-016"):
        await client.wire.order("acme", SubmitMission(crew="ops", goal="x"), id="a.b")


async def test_a_token_dies_with_its_run(client: Client) -> None:
    """INV-7: while the run lives its token names it; a forged one never does; after the run none does."""
    reply = await client.submit(SubmitMission(crew="ops", goal="x"))
    run = await the_next(client, reply.mission_id, RunRequested)
    assert isinstance(run.event, RunRequested)
    issued = await client.ask(IssueToken(mission_id=reply.mission_id, run_id=run.event.run_id))
    context = await client.ask(Authenticate(token=issued.token))
    assert (context.workspace, context.mission_id, context.agent) == ("acme", reply.mission_id, "writer")
    forged = issued.token[:-4] + ("AAAA" if not issued.token.endswith("AAAA") else "BBBB")
    for bad in (forged, "qdm1.e30.e30", "", issued.token + ".x"):
        with pytest.raises(Refused, match="QD-MIS-020"):
            await client.ask(Authenticate(token=bad))
    await client.wire.order(
        "acme", ObserveRun(mission_id=reply.mission_id, run_id=run.event.run_id, outcome="succeeded")
    )
    with pytest.raises(Refused, match="QD-MIS-022"):
        await client.ask(Authenticate(token=issued.token))


async def test_an_expired_token_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    """INV-7: a token's own time runs out though its run still lives."""
    settings = Settings(**settings_for(server, tmp_path).model_dump(), mission_token_ttl_ms=1)
    service = await build(settings)
    await service.start()
    try:
        async with Client.open(url=server.url, workspace="acme") as client:
            program = Artifact(name="p.tar", sha256=await client.artifacts.put(b"p"), size_bytes=1)
            crew = Crew(name="ops", agents=(Agent(name="w", program=program, argv=("p",)),))
            await client.ask(DeclareWorkspace(crews=(crew,)))
            reply = await client.submit(SubmitMission(crew="ops", goal="x"))
            run = await the_next(client, reply.mission_id, RunRequested)
            assert isinstance(run.event, RunRequested)
            issued = await client.ask(IssueToken(mission_id=reply.mission_id, run_id=run.event.run_id))

            async def expired() -> bool:
                with pytest.raises(Refused, match="QD-MIS-021"):
                    await client.ask(Authenticate(token=issued.token))
                return True

            await eventually(expired)
    finally:
        await service.stop()


async def test_a_run_is_asked_of_the_sandbox_service(client: Client) -> None:
    """The request reaches COMMANDS as cmd.sandbox.start with all that a sandbox needs."""
    reply = await client.submit(SubmitMission(crew="ops", goal="say hello"))
    jetstream = client.wire.connection.jetstream()
    subscription = await jetstream.pull_subscribe("cmd.sandbox.start.acme", durable="look", stream="COMMANDS")
    (message,) = await subscription.fetch(1, timeout=5)
    start = msgspec.json.decode(message.data, type=StartSandbox)
    assert (start.mission_id, start.goal, start.argv) == (reply.mission_id, "say hello", ("python",))


async def test_a_mission_survives_the_service(server: EmbeddedServer, tmp_path: Path, client: Client) -> None:
    """Another process of the service carries on where the first stopped: the state is the log's."""
    reply = await client.submit(SubmitMission(crew="ops", goal="x", id="kept"))
    second = await build(Settings(**settings_for(server, tmp_path).model_dump()))
    await second.start()
    try:
        run = await the_next(client, "kept", RunRequested)
        assert isinstance(run.event, RunRequested)
        reports = [
            client.wire.order(
                "acme", ObserveRun(mission_id="kept", run_id=run.event.run_id, outcome="succeeded")
            )
            for _ in range(8)
        ]
        answers = await asyncio.gather(*reports)
        assert {answer.status for answer in answers} == {"completed"}
        kinds = [type(recorded.event).__name__ async for recorded in client.follow(reply.mission_id)]
        assert kinds.count("MissionCompleted") == 1
    finally:
        await second.stop()
