"""The agent as a program: what it does, says and exits with, against a model and tools over real HTTP."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.unit.examples.driver import AGENT, SHIPPED, load_transcript
from tests.unit.examples.standin import World, serving

import main  # isort: skip  # the agent's own: driver put its folder on the path

SMALL = "a,b\n" + "".join(f"{n},{n * n}\n" for n in range(30))
TALK = {"text": "Nothing to do.", "tool_calls": []}


def turn(name: str, arguments: Any) -> dict[str, Any]:
    return {"text": f"I call {name}.", "tool_calls": [{"name": name, "arguments": arguments}]}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The steady transcript over a small file."""
    (tmp_path / "in").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "in" / "small.csv").write_text(SMALL)
    return World(load_transcript("steady"), tmp_path / "in")


async def run(world: World, monkeypatch: pytest.MonkeyPatch, *, max_turns: int = 16) -> int:
    """The agent in this process, with the environment that a sandbox gives it."""
    async with serving(world):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{world.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "mission")
        monkeypatch.setenv("MCP_URL", f"{world.url}/mcp")
        monkeypatch.setenv("MISSION_GOAL", "Profile the file.")
        work = world.inputs.parent / "work"
        return await main.run(argparse.Namespace(inputs=world.inputs, work=work, max_turns=max_turns))


async def test_the_whole_program_publishes_the_shipped_file(tmp_path: Path) -> None:
    """Started as in a sandbox: exit 0, the report is out as it was written, one short line a step."""
    async with serving(World(load_transcript("steady"), SHIPPED.parent)) as world:
        environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1",
            "OPENAI_BASE_URL": f"{world.url}/v1", "OPENAI_API_KEY": "mission", "MODEL": "mission",
            "MCP_URL": f"{world.url}/mcp", "SECRETS_URL": f"{world.url}/secrets", "MISSION_GOAL": "Profile.",
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, AGENT / "main.py", "--inputs", SHIPPED.parent, "--work", tmp_path,
            env=environment, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    assert (process.returncode, err) == (main.DONE, b"")
    report = (tmp_path / "outputs" / "report.md").read_text(encoding="utf-8")
    assert world.published == [{"title": "What 1,461 rows of seattle-weather.csv say", "markdown": report}]
    lines = out.decode().splitlines()
    assert lines[-1].split() == ["done", "the", "report", "is", "published"]
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 110


async def test_a_mission_starts_with_its_goal_and_its_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model gets the goal, the files with their sizes, and all tools, local and remote."""
    world.transcript = {"turns": [TALK]}
    assert await run(world, monkeypatch) == main.NOT_PUBLISHED
    first = world.asked[0]
    assert first["messages"][1]["content"].startswith("Profile the file.\n\nInput files:\n- ")
    assert f"small.csv ({len(SMALL)} bytes)" in first["messages"][1]["content"]
    assert [tool["function"]["name"] for tool in first["tools"]] == [
        "run_python",
        "read_file",
        "publish_report",
    ]


async def test_declined_is_an_end_in_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is told why, asks once and no more, the report stays, exit 3."""
    world.denies = True
    assert await run(world, monkeypatch) == main.NOT_PUBLISHED
    assert world.denied == 1
    assert "declined by user:ada: the figures are not final" in world.tool_results[-1]
    assert (world.inputs.parent / "work" / "outputs" / "report.md").is_file()


async def test_a_refusal_for_money_is_said_and_has_its_own_exit_code(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """402: the endpoint's own words in the output, no second try, exit 4."""
    world.transcript = {"turns": [turn("read_file", {"path": "nothing"})] * 9}
    world.budget_llm_calls = 2
    assert await run(world, monkeypatch) == main.NO_BUDGET
    assert len(world.asked) == 3
    said = "refused  QD-BUD-001: mission/x has 0.00 USD left" + " of its budget" * 9
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (turn("run_python", '{"code": "print('), "the arguments are not valid JSON"),
        (turn("run_python", '["code"]'), "the arguments must be a JSON object"),
        (turn("run_python", '{"code": 7}'), "run_python needs other arguments"),
        (
            turn("launch", "{}"),
            "there is no tool launch; there are ['publish_report', 'read_file', 'run_python']",
        ),
        (turn("publish_report", '{"title": 1}'), "rror"),
    ],
)
async def test_a_wrong_tool_call_is_told_to_the_model(
    call: dict[str, Any], told: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Malformed arguments and unknown tools are answers to the model, not the end of the program."""
    world.transcript = {"turns": [call, TALK]}
    assert await run(world, monkeypatch) == main.NOT_PUBLISHED
    assert told in world.tool_results[-1]
    assert world.published == []


async def test_turns_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never ends is asked as often as allowed, exit 1."""
    world.transcript = {"turns": [turn("read_file", {"path": "nothing"})] * 9}
    assert await run(world, monkeypatch, max_turns=3) == main.FAILED
    assert len(world.asked) == 3


@pytest.mark.parametrize("how", ["ended", "torn"])
async def test_an_answer_that_breaks_off_is_a_failure(
    how: Literal["ended", "torn"],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stream that stops before its end is not taken for an answer, exit 1."""
    world.cut_off = how
    assert await run(world, monkeypatch) == main.FAILED
    assert "stopped  the model's endpoint failed: " in capsys.readouterr().out


async def test_an_endpoint_that_is_not_there_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither endpoint needs to be up for a clear line and exit 1."""
    async with serving(world):
        pass
    for name, value in (
        ("OPENAI_BASE_URL", f"{world.url}/v1"),
        ("OPENAI_API_KEY", "m"),
        ("MISSION_GOAL", "g"),
    ):
        monkeypatch.setenv(name, value)
    options = argparse.Namespace(inputs=world.inputs, work=world.inputs.parent / "work", max_turns=2)
    monkeypatch.delenv("MCP_URL", raising=False)
    assert await main.run(options) == main.FAILED
    monkeypatch.setenv("MCP_URL", f"{world.url}/mcp")
    assert await main.run(options) == main.FAILED
    said = capsys.readouterr().out
    assert "stopped  the model's endpoint failed: Connection error" in said
    assert f"stopped  the tools at {world.url}/mcp can't be reached" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "small.csv is empty"),
        (b" \n\n", "small.csv is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "small.csv is binary"),
        (bytes(range(1, 32)) * 40, "small.csv is binary"),
        (None, "there is no input file"),
    ],
)
async def test_an_unusable_input_ends_before_the_model_is_asked(
    content: bytes | None, said: str, world: World, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Empty, blank, binary or missing: exit 2, a line that names it, and not a cent is spent."""
    file = world.inputs / "small.csv"
    file.unlink() if content is None else file.write_bytes(content)
    assert await run(world, monkeypatch) == main.UNUSABLE_INPUT
    assert said in capsys.readouterr().out
    assert world.asked == []


def test_a_missing_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a goal nothing starts, exit 1."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("MISSION_GOAL", raising=False)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert main.main() == main.FAILED
    assert "not set: MISSION_GOAL" in capsys.readouterr().out
