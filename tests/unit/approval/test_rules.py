"""Rules are judged by real CEL in a process of its own, and can hurt nobody."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quarterdeck.contracts.approval import Rule
from services.approval.adapters.rules import JUDGE, CelRules
from services.approval.domain import Action, Verdict


@pytest.fixture
async def rules() -> AsyncIterator[CelRules]:
    judge = CelRules(limit_s=0.5)
    yield judge
    await judge.close()


def action(arguments: dict[str, Any] | None = None, tool: str = "publish") -> Action:
    return Action(
        tool=tool,
        arguments=arguments or {},
        target="127.0.0.1:9000",
        actor="agent:acme/ops/triage",
        crew="ops",
        agent="triage",
    )


def named(*expressions: str) -> tuple[Rule, ...]:
    return tuple(Rule(name=f"r{n}", when=when, gate="sync") for n, when in enumerate(expressions))


@pytest.mark.parametrize(
    ("expressions", "holds"),
    [
        (('tool == "erase"', 'tool == "publish"', "true"), "r1"),
        (('tool in ["erase"]', "arguments.sum < 0"), None),
        (('target.startsWith("127.")',), "r0"),
        (('arguments.sum > 100 && agent == "triage"',), "r0"),
        (('has(arguments.note) && arguments.note.matches("^x")', 'crew == "ops"'), "r1"),
        (("arguments.to.exists(a, a.endsWith('.example'))",), "r0"),
        (('actor == "agent:acme/ops/triage"',), "r0"),
        ((), None),
    ],
)
async def test_the_first_rule_that_holds_decides(
    rules: CelRules, expressions: tuple[str, ...], holds: str | None
) -> None:
    """Rules see tool, arguments, target, actor, crew and agent; the first one that is true is it."""
    verdict = await rules.judge(3, named(*expressions), action({"sum": 101, "to": ["a@b.example"]}))
    assert verdict == Verdict(policy_version=3, rule=holds)


@pytest.mark.parametrize(
    ("when", "arguments", "why"),
    [
        ("arguments.sum > 10", {}, "sum"),
        ('arguments.sum > "10"', {"sum": 5}, ""),
        ("arguments.sum / 0 > 1", {"sum": 5}, ""),
        ("arguments.note", {"note": "true"}, "not true or false"),
        ('arguments.note.matches("[")', {"note": "x"}, "regex"),
        ('tool.startswith("p")', {}, "startswith"),
    ],
)
async def test_what_cannot_be_judged_is_a_failure(
    rules: CelRules, when: str, arguments: dict[str, Any], why: str
) -> None:
    """A missing key, a wrong type or an outcome that is no truth value names its rule and is never false."""
    verdict = await rules.judge(1, named("false", when, "true"), action(arguments))
    assert verdict.rule == "r1", verdict
    assert verdict.failure
    assert why in verdict.failure


async def test_a_rule_is_stopped_at_its_time(rules: CelRules) -> None:
    """Arguments that make a rule run for ever end in a failure in time, and the next one is judged."""
    slow = "arguments.a.all(x, arguments.a.all(y, arguments.a.all(z, x + y + z >= 0)))"
    verdict = await rules.judge(1, named(slow), action({"a": list(range(5_000))}))
    assert "more than 0.5 s" in verdict.failure
    assert (await rules.judge(1, named("true"), action())).rule == "r0"


async def test_the_process_ends_itself() -> None:
    """The limit holds in the process itself: it is not left running when its service is gone."""
    judge = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(JUDGE), "0.2", stdin=PIPE, stdout=PIPE
    )
    assert judge.stdin is not None
    slow = "arguments.a.all(x, arguments.a.all(y, arguments.a.all(z, x + y + z >= 0)))"
    question = {"rules": [slow], "values": {"arguments": {"a": list(range(5_000))}}}
    judge.stdin.write(json.dumps(question).encode() + b"\n")
    assert await asyncio.wait_for(judge.wait(), 20) == -signal.SIGALRM


async def test_a_rule_is_stopped_at_its_memory(rules: CelRules) -> None:
    """Arguments that make a rule fill the memory end in a failure, and the next one is judged."""
    patient = CelRules(limit_s=20)
    try:
        swelling = "size(arguments.a.map(x, arguments.s + arguments.s)) > 0"
        verdict = await patient.judge(1, named(swelling), action({"a": [0] * 200, "s": "x" * 5_000_000}))
        assert "broke" in verdict.failure
        assert (await patient.judge(1, named("true"), action())).rule == "r0"
    finally:
        await patient.close()


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("tool ==", "Syntax error"),
        ("", "Syntax error"),
        ('tol == "publish"', "it names tol"),
        ('tool == "x" && tol == "y"', "it names tol"),
        ("tool", "it gives str"),
        ("size(arguments)", "it gives int"),
        ("shell('ls') == 0", "shell"),
        ("(" * 1_900 + "true" + ")" * 1_900, ""),
    ],
)
async def test_an_unusable_rule_is_named_with_the_reason(rules: CelRules, when: str, why: str) -> None:
    """What isn't CEL, names what a rule can't see, or gives no truth value is found out when set."""
    complaint = await rules.complaint(named("true", when, "false"))
    assert complaint is not None
    assert complaint[0] == "r1"
    assert why in complaint[1]


@pytest.mark.parametrize(
    "when",
    [
        "arguments.sum > 10",
        "arguments.to.all(a, a != tool)",
        "has(arguments.x) && arguments.x.y == 1",
        "true",
    ],
)
async def test_usable_rules_pass(rules: CelRules, when: str) -> None:
    """A rule over arguments that only some calls have is usable."""
    assert await rules.complaint(named(when)) is None
