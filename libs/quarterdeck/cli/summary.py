"""What a person sees of a mission: a line an event while it runs, and the whole at its end."""

import os
import shutil
import sys
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from quarterdeck.cli.out import STATUS_STYLES, cell, clock, plain, span
from quarterdeck.cli.story import Story
from quarterdeck.client.summaries import Narrator
from quarterdeck.contracts.approval import ApprovalDecided
from quarterdeck.contracts.budget import BudgetReply
from quarterdeck.contracts.envelope import Recorded
from quarterdeck.contracts.journal import VerifyReply
from quarterdeck.contracts.vault import LeaseGranted
from quarterdeck.kernel.money import format_usd

SERVICE_STYLES = {
    "mission": "bold",
    "budget": "green",
    "approval": "yellow",
    "vault": "magenta",
    "sandbox": "blue",
    "gateway": "cyan",
    "eval": "bright_black",
}
BAR = 24


def show_line(console: Console, recorded: Recorded, narrator: Narrator) -> None:
    service = recorded.type.service
    line = Table.grid(padding=(0, 1))
    line.add_column(style="dim", no_wrap=True)
    line.add_column(no_wrap=True, min_width=8, style=SERVICE_STYLES.get(service, ""))
    line.add_column(overflow="fold")
    line.add_row(clock(recorded.meta.at_ms), service, cell(narrator.line(recorded.event)))
    console.print(line)


def show_summary(
    console: Console,
    story: Story,
    *,
    budget: BudgetReply | None,
    verified: VerifyReply | None,
    saved: list[Path],
    data_dir: Path,
) -> None:
    """The end of `quarterdeck run`: done, cost, who approved, which secret, regression, where things are."""
    style = STATUS_STYLES.get(story.status, "yellow")
    parts: list[RenderableType] = [_head(story, style)]
    if budget is not None:
        parts += [Text(), _money(story, budget)]
    parts += [Text(), _facts(story, verified, saved)]
    title = f"[bold {style}]mission {story.status}[/]"
    console.print()
    console.print(Panel(Group(*parts), title=title, title_align="left", border_style=style, padding=(1, 2)))
    _next(console, story, data_dir)


def _head(story: Story, style: str) -> Text:
    took = span(story.last_ms - story.first_ms)
    text = Text()
    if story.accepted is not None:
        text.append(f"{story.accepted.crew}: ", "dim").append(plain(story.accepted.goal) + "\n")
    done = (_count(story.calls, "model call"), _count(len(story.executed), "action") + " outside")
    text.append(", ".join((*done, f"{story.events} events", took)))
    if story.why:
        text.append(f"\n{plain(story.why)}", style)
    for refused in story.over_budget[:1]:
        left = refused.limit_microusd - refused.committed_microusd - refused.reserved_microusd
        text.append("\na call was refused before it left: ", "red")
        text.append(f"it could cost {format_usd(refused.amount_microusd)}, ", "red")
        text.append(f"{_scope(refused.scope)} has {format_usd(left)} left", "red")
    return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _scope(scope: str) -> str:
    return "this mission" if scope.startswith("mission/") else scope


def _money(story: Story, budget: BudgetReply) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold dim")
    for name in ("scope", "window"):
        table.add_column(name)
    for name in ("spent", "limit"):
        table.add_column(name, justify="right")
    table.add_column("")
    for line in budget.scopes:
        limit = line.limit_microusd
        bar = (
            _bar(line.committed_microusd, line.reserved_microusd, limit)
            if limit is not None
            else Text("no limit", "dim")
        )
        table.add_row(
            _scope(line.scope),
            line.window,
            format_usd(line.committed_microusd),
            format_usd(limit) if limit is not None else "",
            bar,
        )
    return table


def _bar(committed: int, reserved: int, limit: int) -> Text:
    share = 1.0 if limit == 0 else min(1.0, (committed + reserved) / limit)
    filled = min(BAR, max(1 if committed + reserved else 0, round(share * BAR)))
    color = "red" if share >= 1 else "yellow" if share >= 0.8 else "green"
    return Text.assemble(
        ("━" * filled, color), ("━" * (BAR - filled), "bright_black"), (f" {share:.0%}", "dim")
    )


def _facts(story: Story, verified: VerifyReply | None, saved: list[Path]) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("cost", _cost(story))
    for decided in story.decided:
        facts.add_row("approval", _decision(story, decided))
    for lease in story.leases:
        facts.add_row("secret", _lease(lease))
    for denied in story.denials:
        facts.add_row(
            "secret", Text(f"{denied.name} denied to agent {denied.agent}: {denied.message}", "red")
        )
    for ended in story.sandboxes:
        driver = next((s.driver for s in story.started if s.run_id == ended.run_id), "?")
        facts.add_row(
            "sandbox",
            f"{driver}, {span(ended.wall_ms)}, peak {ended.peak_memory_bytes >> 20} MiB, ended {ended.kind}",
        )
    facts.add_row("eval", _eval(story))
    for path in saved:
        facts.add_row("report" if path.suffix == ".md" else "output", str(path))
    if verified is not None:
        facts.add_row("journal", _journal(verified))
    return facts


def _lease(lease: LeaseGranted) -> str:
    who = f"{lease.name} v{lease.version}, {lease.use}"
    if lease.use == "brokered":
        return f"{who} for agent {lease.agent} to {plain(lease.target)}; it never entered the sandbox"
    return f"{who} by agent {lease.agent}: {plain(lease.intent)}"


def _cost(story: Story) -> Text:
    tokens = f"{story.input_tokens:,} tokens in, {story.output_tokens:,} out"
    text = Text(f"{format_usd(story.spent_microusd)} for {tokens}")
    if story.unconfirmed_microusd:
        text.append(f"; {format_usd(story.unconfirmed_microusd)} of it unconfirmed", "yellow")
    if story.replays:
        text.append(f"; {story.replays} answers replayed free of charge")
    if story.accepted is not None and story.accepted.model.startswith("recorded:"):
        priced = ", ".join(sorted(story.priced_as)) or "none"
        text.append(f"\nrecorded model, priced as {priced}: nothing was really paid", "dim")
    return text


def _decision(story: Story, decided: object) -> Text:
    if isinstance(decided, ApprovalDecided):
        asked = story.asked.get(decided.approval_id)
        style = STATUS_STYLES.get(decided.outcome, "")
        text = Text.assemble(
            (decided.outcome, style), f" {plain(asked.tool) if asked else ''} by {plain(decided.decided_by)}"
        )
        if decided.note:
            text.append(f" — {plain(decided.note)}", "dim")
        return text
    return Text("expired unanswered: denied", "red")


def _eval(story: Story) -> Text:
    if story.regression is not None:
        return Text(
            f"REGRESSION against {story.regression.baseline_id}: {', '.join(story.regression.metrics)}",
            "bold red",
        )
    if story.compared is not None:
        return Text(f"{story.compared.verdict} as its baseline {story.compared.baseline_id}", "green")
    if story.baseline is not None:
        return Text("first of its kind: from now on the baseline")
    return Text("measured" if story.evaluated else "not measured yet", "dim")


def _journal(verified: VerifyReply) -> Text:
    if verified.ok:
        return Text.assemble(
            ("verified", "green"),
            f": {verified.events} events, {verified.checkpoints} signed checkpoints,",
            f" root {verified.root[:16]}…",
        )
    return Text("NOT INTACT: " + "; ".join(f.message for f in verified.findings[:3]), "bold red")


def called() -> str:
    """How this command is called here: by its name where that finds it, else by its path from here."""
    own = Path(sys.argv[0]).resolve()
    found = shutil.which("quarterdeck")
    if found is not None and Path(found).resolve() == own:
        return "quarterdeck"
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def _next(console: Console, story: Story, data_dir: Path) -> None:
    if story.accepted is None:
        return
    mission_id = story.accepted.mission_id
    where = f"{called()} " + ("" if data_dir == Path(".quarterdeck") else f"--data-dir {data_dir} ")
    console.print(
        Text.assemble(
            ("look further  ", "dim"), f"{where}journal show {mission_id}\n",
            ("              ", "dim"), f"{where}eval diff {mission_id}",
        ),
        soft_wrap=True,
    )  # fmt: skip
