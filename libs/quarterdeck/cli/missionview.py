"""A mission as a person reads it: what was wanted, what it cost, who decided, what came of it.

`row` is a row of the journal's read model `missions`, which is also what a rebuild from the log gives.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from quarterdeck.cli.budget import bar
from quarterdeck.cli.out import NONE, STATUS_STYLES, cell, moment, pairs, plain, span, status_cell
from quarterdeck.kernel.money import format_usd

BAR_COLUMNS = 16
GOAL_CHARACTERS = 600


def show_mission(console: Console, row: dict[str, Any], more: Mapping[str, Text] | None = None) -> None:
    """`more`: facts from elsewhere, shown below the mission's own."""
    status = str(row.get("status", "unknown"))
    goal = str(row.get("goal", ""))
    cut = goal[:GOAL_CHARACTERS] + ("…" if len(goal) > GOAL_CHARACTERS else "")
    style = STATUS_STYLES.get(status, "dim")
    title = Text.assemble(("mission ", "dim"), cell(row["mission_id"], "bold"), " ", status_cell(status))
    if cut:
        console.print(
            Panel(Text(plain(cut, lines=True)), title=title, title_align="left", border_style=style)
        )
    else:
        console.print(title)
    console.print(pairs(_facts(row) | dict(more or {})))


def _facts(row: dict[str, Any]) -> dict[str, Text | str]:
    facts: dict[str, Text | str] = {}
    if row.get("crew"):
        facts["crew"] = f"{row['crew']}, model {row['model'].partition('@')[0]}"
        facts["asked by"] = f"{row['requested_by'].removeprefix('user:')}, {_when(row)}"
        facts["inputs"] = ", ".join(file["name"] for file in row["inputs"]) or NONE
        facts["cost"] = _cost(row)
    if row.get("code"):
        facts["why"] = cell(f"{row['code']} {row['message']}", "red")
    elif row.get("reason"):
        facts["why"] = row["reason"]
    facts |= {f"run {number}": _run(line) for number, line in enumerate(row.get("runs") or (), 1)}
    calls = {
        "calls": "llm_calls",
        "replayed": "replayed_calls",
        "refused": "refused_calls",
        "failed": "failed_calls",
    }
    counted = [f"{row[name]} {words}" for words, name in calls.items() if row.get(name)]
    if counted:
        facts["model"] = (
            f"{', '.join(counted)}; {row['input_tokens']:,} tokens in, {row['output_tokens']:,} out"
        )
    for line in row.get("approvals") or ():
        facts[f"approval {line['approval_id'][:8]}"] = _approval(line)
    for line in row.get("secrets") or ():
        facts[f"secret {line['name']}"] = f"{line['use']}: {line['granted']} granted, {line['denied']} denied"
    if row.get("outputs"):
        facts["outputs"] = ", ".join(file["name"] for file in row["outputs"])
    return facts


def _when(row: dict[str, Any]) -> str:
    begun, ended = row["accepted_at_ms"], row["ended_at_ms"]
    if begun is None:
        return NONE
    return moment(begun) + (f", took {span(ended - begun)}" if ended is not None else "")


def _cost(row: dict[str, Any]) -> Text:
    text = cell(f"{format_usd(row['cost_microusd'])} of {format_usd(row['budget_microusd'])}  ")
    text.append_text(bar(row["cost_microusd"], 0, row["budget_microusd"], BAR_COLUMNS))
    if row["unconfirmed_microusd"]:
        text.append(f"  {format_usd(row['unconfirmed_microusd'])} unconfirmed", "yellow")
    return text


def _run(line: dict[str, Any]) -> Text:
    text = cell(f"{line['task']}, attempt {line['attempt']}: ").append_text(status_cell(line["outcome"]))
    if line["exit_code"]:
        text.append(f", exit code {line['exit_code']}")
    return text


def _approval(line: dict[str, Any]) -> Text:
    text = cell(f"{line['tool']}: ").append_text(status_cell(line["status"]))
    if line["decided_by"]:
        text.append_text(cell(f" by {line['decided_by'].removeprefix('user:')}"))
    return text.append_text(cell(f"  {line['rule']}", "dim"))
