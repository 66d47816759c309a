"""The workspace file holds together with the contracts and with the files that it names."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from quarterdeck.client.programs import names
from quarterdeck.client.workspacefile import WorkspaceFile
from quarterdeck.contracts.mission import RunLimits, Tool
from tests.unit.examples.driver import ANALYST, load_transcript


@pytest.fixture
def workspace() -> dict[str, Any]:
    text = (ANALYST / "workspace.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text.replace("${desk}", "127.0.0.1:8400"))
    return loaded


def test_the_tool_is_one_that_a_crew_can_have(workspace: dict[str, Any]) -> None:
    """It decodes as the contract's Tool; its credential is a brokered secret for exactly its host."""
    tool = msgspec.convert(workspace["crews"][0]["tools"][0], Tool)
    secret = workspace["secrets"][0]
    assert tool.url == "http://127.0.0.1:8400/reports"
    assert (tool.credential, secret["uses"], secret["hosts"]) == (
        secret["name"],
        ["brokered"],
        ["127.0.0.1:8400"],
    )
    assert secret["scope"] == f"crew/{workspace['crews'][0]['name']}"


def test_it_reads_as_a_workspace_with_every_file_that_it_names() -> None:
    """The reader of `apply` finds no fault, the program holds what is started, the model is steady."""
    read = WorkspaceFile(ANALYST / "workspace.yaml", {"desk": "127.0.0.1:8400"})
    agent = read.part.crews[0].agents[0]
    assert agent.argv[1].removeprefix("/agent/") in names(read.programs[agent.program])
    assert [json.loads(text)["name"] for text in read.transcripts.values()] == ["steady"]


def test_publishing_is_gated_and_every_call_fits_the_schema(workspace: dict[str, Any]) -> None:
    """The policy names the one tool there is; the transcripts call it with arguments that it takes."""
    tool = workspace["crews"][0]["tools"][0]
    assert [rule["when"] for rule in workspace["policy"]] == [f'tool == "{tool["name"]}"']
    for name in ("steady", "detour"):
        for turn in load_transcript(name)["turns"]:
            for call in turn["tool_calls"]:
                if call["name"] == tool["name"]:
                    jsonschema.validate(call["arguments"], tool["input_schema"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"title": "T", "markdown": ""}, tool["input_schema"])


def test_a_program_of_the_agent_ends_long_before_its_sandbox_does() -> None:
    """The agent's own limit for a program leaves room for a whole mission within the wall time."""
    import local_tools

    assert RunLimits().wall_ms >= 3 * local_tools.RUN_LIMIT_S * 1_000
