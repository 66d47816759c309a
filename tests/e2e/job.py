"""The main job in pieces, for tests that look at what a command can't show: the credential is known."""

import contextlib
import importlib.util
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.client import Client
from quarterdeck.client.client import FINAL_EVENTS
from quarterdeck.client.files import read_input
from quarterdeck.client.workspace import apply, resolve_model
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.mission import Artifact, SubmitMission
from quarterdeck.contracts.vault import PutSecret

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "analyst"
CREDENTIAL = "desk-credential-7f3a9c0e51b2"
"""What must never be seen anywhere but in the desk's own memory."""


@dataclass
class Job:
    client: Client
    desk: Any

    async def submit(self, mission_id: str, *, transcript: str | None = None, **fields: Any) -> None:
        """The shipped file for the analyst, under this id."""
        path = next(iter(sorted((EXAMPLE / "inputs").glob("*.csv"))))
        content = read_input(path)
        sha256 = await self.client.artifacts.put(content)
        model = None
        if transcript is not None:
            model = await resolve_model(self.client, f"recorded:{EXAMPLE / 'transcripts' / transcript}.json")
        await self.client.submit(
            SubmitMission(
                id=mission_id,
                crew="analysts",
                goal="Profile the file and publish the report.",
                inputs=(Artifact(name=path.name, sha256=sha256, size_bytes=len(content)),),
                model=model,
                **fields,
            )
        )

    async def until(self, mission_id: str, *kinds: type[Any], number: int = 1) -> Recorded:
        """The `number`-th event of one of these kinds, waited for. Fails when the mission ends before."""
        return (await self.told_until(mission_id, *kinds, number=number))[-1]

    async def told_until(self, mission_id: str, *kinds: type[Any], number: int = 1) -> list[Recorded]:
        """All events up to that one."""
        told: list[Recorded] = []
        seen = 0
        async with contextlib.aclosing(self.client.events(f"evt.*.demo.{mission_id}.>")) as events:
            async for recorded in events:
                told.append(recorded)
                if isinstance(recorded.event, kinds):
                    seen += 1
                    if seen == number:
                        return told
                assert not isinstance(recorded.event, FINAL_EVENTS), recorded.event
        raise AssertionError("unreachable")

    async def story(self, mission_id: str) -> list[Recorded]:
        """All events up to the mission's last."""
        return [recorded async for recorded in self.client.follow(mission_id)]


@contextlib.asynccontextmanager
async def report_desk(directory: Path) -> AsyncIterator[Any]:
    """The example's endpoint, with a credential that we know."""
    source = importlib.util.spec_from_file_location("report_desk", EXAMPLE / "desk.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    sys.modules[source.name] = module
    source.loader.exec_module(module)
    desk = module.ReportDesk(directory, CREDENTIAL)
    await desk.start()
    try:
        yield desk
    finally:
        await desk.stop()


async def declare(client: Client, desk: Any) -> Job:
    """The example's workspace, with the desk's credential in its vault."""
    target = f"127.0.0.1:{desk.port}"
    await apply(client, EXAMPLE / "workspace.yaml", {"desk": target})
    await client.ask(PutSecret(name="report-desk", value=CREDENTIAL, scope="crew/analysts", hosts=(target,)))
    return Job(client, desk)
