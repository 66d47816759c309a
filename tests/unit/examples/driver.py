"""Plays a transcript against the agent's local tools, without any model: the turns are the answers."""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANALYST = Path(__file__).parents[3] / "examples" / "analyst"
AGENT = ANALYST / "agent"
SHIPPED = ANALYST / "inputs" / "seattle-weather.csv"
RESULT = re.compile(r"\{\{result:(-?\d+)\}\}")

sys.path.insert(0, str(AGENT))  # the agent's folder is its import path, as for `python /agent/main.py`

from local_tools import SCHEMAS, LocalTools, ToolResult  # noqa: E402


def load_transcript(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (ANALYST / "transcripts" / f"{name}.json").read_text(encoding="utf-8")
    )
    return loaded


def filled(value: Any, results: list[str], inputs: Path) -> Any:
    """`{{result:k}}` replaced; outside a sandbox `/inputs` is another folder."""
    if isinstance(value, str):
        whole = RESULT.sub(lambda match: results[int(match[1])], value)
        return whole.replace('"/inputs"', json.dumps(str(inputs)))
    return {key: filled(part, results, inputs) for key, part in value.items()}


@dataclass
class Played:
    """What came of it. Token counts are a quarter of the bytes, as the recorded provider counts them."""

    results: list[ToolResult] = field(default_factory=list)
    published: list[dict[str, str]] = field(default_factory=list)
    llm_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def steps(self) -> int:
        return self.llm_calls + len(self.results)

    @property
    def failures(self) -> list[ToolResult]:
        return [result for result in self.results if not result.ok]


async def play(transcript: dict[str, Any], inputs: Path, work: Path) -> Played:
    """Every turn in order; publishing is noted down and answered like the desk would."""
    tools, played = LocalTools(work), Played()
    heard = len(json.dumps(SCHEMAS))
    for turn in transcript["turns"]:
        texts = [result.text for result in played.results]
        calls = [(call["name"], filled(call["arguments"], texts, inputs)) for call in turn["tool_calls"]]
        spoken = len(turn["text"].encode()) + sum(len(json.dumps(arguments)) for _, arguments in calls)
        played.llm_calls += 1
        played.input_tokens += heard // 4
        played.output_tokens += spoken // 4
        heard += spoken
        for name, arguments in calls:
            if name == "publish_report":
                played.published.append(arguments)
                result = ToolResult('{"id": "1"}')
            else:
                result = await tools.call(name, arguments)
            played.results.append(result)
            heard += len(result.text.encode())
    return played
