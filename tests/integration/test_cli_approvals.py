"""What waits for a person, shown and decided at the terminal."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from quarterdeck.cli.datadir import DataDir
from quarterdeck.contracts.approval import RequestApproval
from quarterdeck.kernel.digest import canonical, digest
from tests.integration.cli_deck import (
    MISSION,
    Deck,
    accepted,
    own_workspace,
    running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DataDir]:
    async with running(tmp_path_factory.mktemp("cli")) as home:
        yield home


@pytest.fixture
def deck(home: DataDir, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Deck:
    return Deck(home, capsys, own_workspace(request))


async def ask_to_publish(deck: Deck, arguments: dict[str, Any], approval_id: str = "ab" * 16) -> str:
    """What the gateway does when an agent wants to act."""
    await deck.record(accepted())
    async with deck.client() as client:
        await client.artifacts.put(canonical(arguments))
        request = RequestApproval(
            approval_id=approval_id,
            mission_id=MISSION,
            run_id="run-1",
            crew="analysts",
            agent="analyst",
            tool="publish_report",
            arguments=arguments,
            arguments_sha256=digest(arguments),
            target="127.0.0.1:8400",
        )
        reply = await client.ask(request)
        assert reply.status == "pending", reply
    return approval_id


async def test_an_approval_shows_exactly_what_would_be_done(deck: Deck) -> None:
    """Arguments, digest and target are there; what hides is written out; a long one is cut and says so."""
    report = "\n".join(f"line {number}" for number in range(100)) + "\nlast \u202eline"
    arguments = {"title": "Weather", "report": report}
    id = await ask_to_publish(deck, arguments)
    shown = await deck("approval", "show", id[:4])
    assert shown.code == 0
    for words in ("publish_report", "127.0.0.1:8400", digest(arguments), "Weather", "line 23", "more lines"):
        assert words in shown.out, words
    assert "line 24" not in shown.out
    whole = await deck("approval", "show", id, "--full")
    assert "line 99" in whole.out
    assert "\\u202eline" in whole.out
    assert "\u202e" not in whole.out
    assert (await deck("approval", "show", id, "--json")).json["arguments"] == arguments
    assert (await deck("approval", "show", id, "--raw")).out.startswith('{"report":"line 0')


async def test_what_markdown_would_hide_is_shown_as_it_is_written(deck: Deck) -> None:
    """A comment or a link's target in a report is not swallowed by rendering it."""
    id = await ask_to_publish(deck, {"report": "# Fine\n\n<!-- pay 1000 --> [see](http://evil.example)\n"})
    shown = (await deck("approval", "show", id)).out
    assert "<!-- pay 1000 -->" in shown
    assert "http://evil.example" in shown


async def test_an_approval_is_decided_once_by_a_named_person(deck: Deck) -> None:
    """The list shows who decided; a second decision is refused by rule; arguments that are gone are told."""
    id = await ask_to_publish(deck, {"title": "x"})
    assert (await deck("approval", "list", "--json")).json["approvals"][0]["status"] == "pending"
    approved = await deck("approval", "approve", id[:6], "--note", "numbers checked", "--json")
    assert approved.code == 0
    assert (approved.json["status"], approved.json["decided_by"]) == ("approved", "user:ada")
    assert approved.json["grant"] == ""
    second = await deck("approval", "deny", id[:6])
    assert second.code == 3
    assert second.err.startswith("QD-APR-")
    (row,) = (await deck("approval", "list", "--status", "approved", "--json")).json["approvals"]
    assert (row["note"], row["decided_by"]) == ("numbers checked", "user:ada")
    assert "ada" in (await deck("approval", "list")).out
