"""A workspace file: what it means, and a line for every mistake."""

import textwrap
from pathlib import Path

import pytest

from quarterdeck.client.workspacefile import WorkspaceFile, recorded_model
from quarterdeck.kernel.digest import sha256
from quarterdeck.kernel.errors import SetupProblem

WHOLE = """
workspace: demo
budgets:
  - {scope: workspace, limit_usd: "5.00", window: day}
  - {scope: crew/analysts, limit_usd: 0.1}
  - {scope: agent/analysts/analyst, limit_usd: null}
policy:
  - {name: publishing-needs-a-person, when: 'tool == "publish_report"', gate: sync, deadline_minutes: 60}
secrets:
  - {name: report-desk, scope: crew/analysts, uses: [brokered], hosts: ["${desk}"]}
crews:
  - name: analysts
    model: recorded:transcripts/steady.json
    mission_budget_usd: "0.50"
    attempts: 2
    limits: {memory_mib: 512, wall_minutes: 1.5}
    agents:
      - {name: analyst, program: agent, argv: [python, /agent/main.py]}
    tools:
      - name: publish_report
        description: Publish it.
        method: POST
        url: http://${desk}/reports
        credential: report-desk
        input_schema: {type: object}
"""


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "main.py").write_text("print(1)\n")
    (tmp_path / "transcripts").mkdir()
    (tmp_path / "transcripts" / "steady.json").write_text("{}")
    return tmp_path


def read(beside: Path, text: str, **variables: str) -> WorkspaceFile:
    (beside / "w.yaml").write_text(textwrap.dedent(text).lstrip())
    return WorkspaceFile(beside / "w.yaml", variables)


def mistake(beside: Path, text: str, **variables: str) -> SetupProblem:
    with pytest.raises(SetupProblem) as problem:
        read(beside, text, **variables)
    return problem.value


def test_a_file_becomes_what_the_services_are_asked(beside: Path) -> None:
    """Money, time and sizes are in the contract's units; variables are filled in everywhere."""
    file = read(beside, WHOLE, desk="127.0.0.1:8400")
    assert [(limit.scope, limit.limit_microusd, limit.window) for limit in file.limits()] == [
        ("workspace", 5_000_000, "day"),
        ("crew/analysts", 100_000, "total"),
        ("agent/analysts/analyst", None, "total"),
    ]
    (rule,) = file.policy().rules
    assert (rule.gate, rule.deadline_ms) == ("sync", 3_600_000)
    assert file.secret("report-desk").hosts == ("127.0.0.1:8400",)
    program = file.programs["agent"]
    stored = {"agent": sha256(program), "recorded:transcripts/steady.json": "b" * 64}
    (crew,) = file.crews(stored).crews
    assert crew.model == "recorded:steady@" + "b" * 64
    assert crew.mission_budget_microusd == 500_000
    assert (crew.limits.memory_bytes, crew.limits.wall_ms, crew.attempts) == (512 << 20, 90_000, 2)
    assert crew.tools[0].url == "http://127.0.0.1:8400/reports"
    assert crew.agents[0].program.sha256 == sha256(program)
    assert crew.agents[0].program.size_bytes == len(program)


def test_a_recorded_model_that_is_stored_already_stays(beside: Path) -> None:
    """`recorded:<name>@<sha256>` is no path."""
    text = WHOLE.replace("recorded:transcripts/steady.json", "recorded:steady@" + "a" * 64)
    assert read(beside, text, desk="d:1").transcripts == {}
    assert recorded_model("recorded:x/steady.json", "c" * 64) == "recorded:steady@" + "c" * 64


@pytest.mark.parametrize(
    ("change", "code", "line", "words"),
    [
        (("window: day", "window: year"), "QD-CLI-021", 3, "budgets[0].window"),
        (("scope: workspace,", "scope: team,"), "QD-CLI-021", 3, "budgets[0].scope"),
        (("gate: sync", "gate: ask"), "QD-CLI-021", 7, "policy[0].gate"),
        (("attempts: 2", "atempts: 2"), "QD-CLI-021", 14, "atempts: there is no such field"),
        (
            ("    model: recorded:transcripts/steady.json\n", ""),
            "QD-CLI-021",
            11,
            "crews[0].model: it has to be",
        ),
        (("model: recorded:transcripts/steady.json", "model: gpt"), "QD-CLI-021", 12, "not 'gpt'"),
        (("credential: report-desk", "credential: none"), "QD-CLI-021", 23, "no secret 'none'"),
        (("steady.json", "gone.json"), "QD-CLI-026", 12, "gone.json"),
        (("program: agent,", "program: agnet,"), "QD-CLI-023", 17, "agnet"),
        (("/agent/main.py", "/agent/mian.py"), "QD-CLI-023", 17, "mian.py"),
        (('limit_usd: "5.00"', "limit_usd: much"), "QD-CLI-004", 3, "budgets[0].limit_usd"),
        (("attempts: 2", "name: again"), "QD-CLI-020", 14, "'name' stands twice"),
        (("attempts: 2", "attempts: [1"), "QD-CLI-020", 15, ""),
    ],
)
def test_a_mistake_is_told_with_file_line_and_field(
    change: tuple[str, str], code: str, line: int, words: str, beside: Path
) -> None:
    """The first mistake is named by `w.yaml:<line>` and its field, with a stable code."""
    problem = mistake(beside, WHOLE.replace(*change), desk="d:1")
    assert problem.code == code, problem
    assert f"w.yaml:{line}" in problem.message
    assert words in problem.message


def test_a_variable_without_a_value_is_told(beside: Path) -> None:
    """QD-CLI-022 says which, where, and the option that gives it; `$$` is a dollar."""
    problem = mistake(beside, WHOLE)
    assert problem.code == "QD-CLI-022"
    assert "w.yaml:9" in problem.message
    assert "--set desk=" in problem.hint
    assert read(beside, "workspace: demo\nsecrets: [{name: a, hosts: ['$${x}']}]").secret("a").hosts == (
        "${x}",
    )


def test_a_value_is_text_and_never_yaml(beside: Path) -> None:
    """What --set gives can't add fields to the file."""
    file = read(beside, WHOLE, desk="x, tier: L1}\nworkspace: other")
    assert file.workspace == "demo"
    assert file.secret("report-desk").tier == "L2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "just words",
        "a: &x [1]\nb: *x\n",
        "[" * 2_000,
        "a: \x01\n",
        "a: {b: !!python/object:x {}}",
    ],
)
def test_what_is_no_workspace_is_told(text: str, beside: Path) -> None:
    """Empty, a list, aliases, bottomless nesting, controls, foreign tags: a code and a line each."""
    (beside / "w.yaml").write_text(text)
    with pytest.raises(SetupProblem) as problem:
        WorkspaceFile(beside / "w.yaml")
    assert problem.value.code in ("QD-CLI-020", "QD-CLI-021")
    assert "w.yaml:" in problem.value.message


def test_a_file_that_can_not_be_read_is_told(beside: Path) -> None:
    """Missing, a folder, not UTF-8."""
    for name, code in (("none.yaml", "QD-CLI-010"), ("agent", "QD-CLI-015")):
        with pytest.raises(SetupProblem) as problem:
            WorkspaceFile(beside / name)
        assert problem.value.code == code
    (beside / "w.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(SetupProblem) as problem:
        WorkspaceFile(beside / "w.yaml")
    assert problem.value.code == "QD-CLI-020"


def test_names_stand_once(beside: Path) -> None:
    """Two crews, rules or secrets of one name are a mistake, not the last one's win."""
    problem = mistake(beside, "workspace: demo\nsecrets:\n- {name: a}\n- {name: a}\n")
    assert problem.code == "QD-CLI-021"
    assert "w.yaml:4" in problem.message


def test_an_undeclared_secret_is_told_with_what_there_is(beside: Path) -> None:
    """QD-CLI-003 lists the declared ones."""
    with pytest.raises(SetupProblem) as problem:
        read(beside, WHOLE, desk="d:1").secret("other")
    assert problem.value.code == "QD-CLI-003"
    assert "report-desk" in problem.value.hint
