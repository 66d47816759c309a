"""Write steady.json and detour.json: recorded answers of a model that drive the analyst's real tools.

    python examples/analyst/transcripts/build.py            writes both
    python examples/analyst/transcripts/build.py --check    exits 1 when one differs from its source

The programs that the transcripts run are the files in scripts/, kept apart so that they can be read, linted
and changed; the transcripts are made from them and never edited by hand.

A transcript is {"name", "priced_as", "delay_ms", "turns", "after_denial"}. A turn is {"text", "tool_calls":
[{"name", "arguments"}]}; it is the answer after as many assistant messages as come before it. `{{result:k}}`
in a string stands for the whole text of a tool result so far, counted from the end when k is negative. The
turns of `after_denial` follow once a tool call was declined.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PRICED_AS = "gpt-5-mini"
DELAY_MS = 150

Turn = dict[str, Any]


def call(name: str, **arguments: str) -> Turn:
    return {"name": name, "arguments": arguments}


def script(name: str) -> Turn:
    """Run one of the scripts and keep it, so that later ones import from it."""
    return call("run_python", code=(HERE / "scripts" / name).read_text(encoding="utf-8"), save_as=name)


def turn(text: str, *tool_calls: Turn) -> Turn:
    return {"text": text, "tool_calls": list(tool_calls)}


READ_BACK = call("read_file", path="outputs/report.md")
# The last program prints the title, the file just read is the report.
PUBLISH = call("publish_report", title="{{result:-2}}", markdown="{{result:-1}}")
LAST = turn(
    "The report is written, read back and published as it stands. It describes the file, its columns, the "
    "three findings that stand out most, and what to be careful about."
)
AFTER_DENIAL = [
    turn(
        "The reviewer declined to publish the report, and I leave it at that. Nothing was sent anywhere; the "
        "report stays in outputs/report.md for whoever wants to read it or decide again."
    )
]


def steady() -> list[Turn]:
    return [
        turn("I'll look at the file first: its form, its columns, a few values.", script("table.py")),
        turn(
            "Now the columns one by one, and how they go together.",
            script("columns.py"),
            script("relations.py"),
        ),
        turn("What stands out in these numbers?", script("findings.py")),
        turn("That carries a report. I'll write it.", script("report.py")),
        turn("I'll read it back before anybody else does.", READ_BACK),
        turn("It reads well, and its numbers are the ones I saw. I'll publish it.", PUBLISH),
        LAST,
    ]


def detour() -> list[Turn]:
    return [
        turn("Let me see what there is.", script("list_inputs.py")),
        turn("I'll load it into a data frame.", script("with_pandas.py")),
        turn("No pandas here. I'll print some of it and look for myself.", script("first_lines.py")),
        turn("Reading it needs more care: delimiter, kinds, missing values.", script("table.py")),
        turn("Each column by itself.", script("columns.py")),
        turn("All figures of all columns at once.", script("wrong_name.py")),
        turn("That function does not exist. Back to the columns.", script("columns.py")),
        turn("How do the columns go together?", script("relations.py")),
        turn("What stands out?", script("findings.py")),
        turn("I'll write the report.", script("report.py")),
        turn("I'll read it.", READ_BACK),
        turn("I'll write it once more.", script("report.py")),
        turn("And read it again.", READ_BACK),
        turn("Now I publish it.", PUBLISH),
        LAST,
    ]


def transcripts() -> dict[str, str]:
    """The text of each file by its name."""
    made = {}
    for name, turns in (("steady", steady()), ("detour", detour())):
        whole = {
            "name": name,
            "priced_as": PRICED_AS,
            "delay_ms": DELAY_MS,
            "turns": turns,
            "after_denial": AFTER_DENIAL,
        }
        made[f"{name}.json"] = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the transcripts from the scripts.")
    parser.add_argument("--check", action="store_true", help="write nothing, say whether they agree")
    check = parser.parse_args().check
    stale = [
        name for name, text in transcripts().items()
        if not (HERE / name).is_file() or (HERE / name).read_text(encoding="utf-8") != text
    ]  # fmt: skip
    if check:
        print(f"stale: {', '.join(stale)}" if stale else "the transcripts agree with their scripts")
        return 1 if stale else 0
    for name, text in transcripts().items():
        (HERE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
