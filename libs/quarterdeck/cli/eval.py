"""`quarterdeck eval`: a mission in numbers, and against its baseline."""

from typing import Annotated

import typer
from rich.text import Text

from quarterdeck.cli import find
from quarterdeck.cli.invocation import Invocation, command
from quarterdeck.cli.listing import Listing
from quarterdeck.cli.out import (
    NONE,
    STATUS_STYLES,
    cell,
    pairs,
    short_id,
    span,
    status_cell,
    working,
    write_json,
)
from quarterdeck.cli.session import session
from quarterdeck.contracts.eval import (
    Delta,
    DiffMissions,
    DiffReply,
    Metrics,
    MetricsReply,
    SetBaseline,
    ShowMetrics,
)
from quarterdeck.kernel.money import format_usd

OFFLINE = ("eval",)
MissionId = Annotated[str, typer.Argument(metavar="MISSION", help="Its id, or an unmistakable beginning.")]

group = typer.Typer(rich_markup_mode="rich")


@command(
    group, "metrics", examples=["quarterdeck eval metrics 019a3c", "quarterdeck eval metrics 019a3c --steps"]
)
async def metrics(
    call: Invocation,
    *,
    mission: MissionId,
    steps: Annotated[bool, typer.Option("--steps", help="The trajectory too, step by step.")] = False,
) -> None:
    """Show what a mission took: steps, tokens, money, time; counted from its events alone."""
    async with session(call, offline=OFFLINE) as client:
        reply: MetricsReply = await client.ask(ShowMetrics(mission_id=await find.mission(client, mission)))
    if call.json:
        write_json(reply)
        return
    call.out.print(cell(f"mission {reply.mission_id}", "bold"))
    call.out.print(
        pairs({_name(name): _shown(name, number) for name, number in _numbers(reply.metrics).items()})
    )
    if steps:
        call.out.print()
        call.out.print(_steps(reply))


@command(
    group,
    "diff",
    examples=["quarterdeck eval diff 019a3c", "quarterdeck eval diff 019a3c 019a11 --strict"],
)
async def diff(
    call: Invocation,
    *,
    mission: MissionId,
    baseline: Annotated[
        str | None,
        typer.Argument(metavar="BASELINE", help="Default: the baseline on record for such missions."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when it is worse.")] = False,
) -> int:
    """Hold a mission against another one, as numbers.

    A metric that is worse by more than its threshold has regressed.
    """
    async with session(call, offline=OFFLINE) as client:
        against = None if baseline is None else await find.mission(client, baseline)
        request = DiffMissions(mission_id=await find.mission(client, mission), baseline_id=against)
        with working(call.err, "comparing"):
            reply: DiffReply = await client.ask(request)
    code = int(strict and reply.verdict == "worse")
    if call.json:
        write_json(reply)
        return code
    if reply.mission_id == reply.baseline_id:
        call.note("this mission is the baseline itself; name another: quarterdeck eval diff MISSION BASELINE")
    verdict = Text.assemble(
        cell(short_id(reply.mission_id, call.out), "bold"), " is ", status_cell(reply.verdict), " against ",
        cell(short_id(reply.baseline_id, call.out), "bold"),
    )  # fmt: skip
    call.out.print(verdict)
    grid = Listing("metric", ">baseline", ">this", ">change", "?>threshold", "")
    for delta in reply.deltas:
        grid.row(*_row(delta))
    call.out.print(grid)
    call.out.print(cell(f"step distance {reply.step_distance} (inserted, left out or replaced steps)", "dim"))
    return code


@command(group, "baseline", examples=["quarterdeck eval baseline 019a3c"])
async def baseline(call: Invocation, *, mission: MissionId) -> None:
    """Make a mission the baseline of all that are the same work: crew, goal and inputs."""
    async with session(call) as client:
        reply = await client.ask(SetBaseline(mission_id=await find.mission(client, mission)))
    if call.json:
        write_json(reply)
    else:
        call.out.print(cell(f"mission {reply.mission_id} is the baseline from now on"))


def _numbers(metrics: Metrics) -> dict[str, object]:
    return {name: getattr(metrics, name) for name in metrics.__struct_fields__}


def _name(metric: str) -> str:
    """`llm_latency_ms` as `llm latency`: the value carries the unit."""
    return metric.removesuffix("_ms").removesuffix("_microusd").replace("_", " ")


def _shown(name: str, number: object) -> Text:
    """A metric with its unit; the name says which."""
    if isinstance(number, str):
        return status_cell(number)
    if name.endswith("_microusd") and isinstance(number, int | float):
        return cell(format_usd(round(number)))
    if name.endswith("_ms") and isinstance(number, int | float):
        return cell(span(round(number)))
    return cell(f"{number:,g}" if isinstance(number, float) else f"{number:,}")


def _row(delta: Delta) -> list[Text]:
    worse = "red" if delta.regressed else ""
    arrow = "▲" if delta.change > 0 else "▼" if delta.change < 0 else "="
    change = f"{arrow} {abs(delta.change):.1%}" if delta.baseline else f"{arrow} {abs(delta.change):,g}"
    if not delta.change:
        change = "="
    return [
        cell(_name(delta.metric), worse),
        _shown(delta.metric, delta.baseline),
        _shown(delta.metric, delta.value),
        cell(change, worse or ("dim" if not delta.change else "")),
        cell(NONE if delta.threshold is None else f"{delta.threshold:.0%}", "dim"),
        cell("regressed", "bold red") if delta.regressed else cell(""),
    ]


def _steps(reply: MetricsReply) -> Listing:
    grid = Listing(">", "kind", "~name", "outcome", "?>in", "?>out", ">cost", ">took")
    for number, step in enumerate(reply.steps, 1):
        grid.row(
            cell(number, "dim"),
            cell(step.kind),
            cell(step.name),
            cell(step.outcome, STATUS_STYLES.get(step.outcome, "")),
            cell(f"{step.input_tokens:,}" if step.input_tokens else NONE),
            cell(f"{step.output_tokens:,}" if step.output_tokens else NONE),
            cell(format_usd(step.cost_microusd) if step.cost_microusd else NONE),
            cell(span(step.latency_ms)),
        )
    return grid
