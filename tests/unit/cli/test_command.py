"""The command as a person and a program meet it: help, version, mistakes, exit codes."""

import json
from pathlib import Path

import pytest

from quarterdeck.cli.main import COMMANDS, GROUPS, exit_code, run
from quarterdeck.kernel.errors import (
    ContractViolation,
    QuarterdeckError,
    Refused,
    Rejected,
    SetupProblem,
    Unavailable,
    VersionConflict,
)

EVERY_COMMAND = [
    *(["up"], ["run"], ["doctor"], ["apply"]),
    *(["mission", verb] for verb in ("submit", "list", "show", "follow", "cancel")),
    *(["approval", verb] for verb in ("list", "show", "approve", "deny")),
    *(["budget", verb] for verb in ("set", "show")),
    *(["secret", verb] for verb in ("put", "list", "revoke")),
    *(["journal", verb] for verb in ("tail", "query", "show", "verify", "checkpoint")),
    *(["eval", verb] for verb in ("metrics", "diff", "baseline")),
]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in an empty directory where nothing runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("QUARTERDECK_DATA_DIR", "QUARTERDECK_NATS_URL", "QUARTERDECK_NATS_NKEY"):
        monkeypatch.delenv(name, raising=False)


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """The first page says what there is, shows examples and what each exit code means."""
    assert run(["--help"]) == 0
    page = capsys.readouterr().out
    for name, *_ in (*COMMANDS, *GROUPS):
        assert f" {name} " in page
    for words in ("Examples", "Exit codes", "refused by a rule", "130", "QUARTERDECK_DATA_DIR"):
        assert words in page


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_each_command_explains_itself_with_examples(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command has help with at least one example of itself, and takes the options of everywhere."""
    assert run([*words, "--help"]) == 0
    page = capsys.readouterr().out
    assert "quarterdeck " + " ".join(words) in page.split("Examples", 1)[1]
    for option in ("--json", "--workspace", "--data-dir", "--as"):
        assert option in page


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints name and version, and nothing else."""
    assert run(["--version"]) == 0
    name, version = capsys.readouterr().out.split()
    assert name == "quarterdeck"
    assert version[0].isdigit()


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`quarterdeck budget` shows what budget can do, without a message; the exit code says usage."""
    assert run(["budget"]) == 2
    out, err = capsys.readouterr()
    assert "show" in out
    assert "QD-" not in err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["budgte", "show"], "budgte"),
        (["budget", "show", "--bogus"], "--bogus"),
        (["mission", "submit", "--goal", "x"], "--crew"),
        (["budget", "set", "workspace"], "USD|none"),
        (["budget", "set", "workspace", "5", "--window", "year"], "year"),
        (["-w", "Not A Name", "budget", "show"], "Not A Name"),
        (["--as", "a b", "budget", "show"], "a b"),
    ],
)
def test_wrong_usage_is_named(words: list[str], names: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one stable code, the wrong word in the message, a hint; never a traceback."""
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("QD-CLI-002 ")
    assert names in err
    assert "\n→ " in err
    assert "Traceback" not in err


def test_errors_are_json_where_answers_are(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is one object of code, message and hint on stderr; stdout stays empty."""
    assert run(["mission", "list", "--json"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert set(json.loads(err)) == {"code", "message", "hint"}
    assert json.loads(err)["code"] == "QD-CLI-001"
    assert run(["mission", "list", "--json", "--bogus"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == "QD-CLI-002"


@pytest.mark.parametrize(
    "words",
    [
        ["mission", "list"],
        ["mission", "follow", "m1"],
        ["approval", "approve", "abc"],
        ["budget", "set", "workspace", "5"],
        ["secret", "revoke", "desk"],
        ["journal", "verify"],
        ["eval", "metrics", "m1"],
    ],
    ids=" ".join,
)
def test_where_nothing_runs_every_command_says_how_to_start(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """QD-CLI-001, exit code 4, the command that helps; and nothing was made on the disk."""
    assert run(words) == 4
    err = capsys.readouterr().err
    assert err.startswith("QD-CLI-001 nothing runs on .quarterdeck")
    assert "quarterdeck up" in err
    assert list(tmp_path.iterdir()) == []


def test_options_stand_before_or_behind_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """--data-dir is understood on both sides, and behind wins."""
    run(["--data-dir", "before", "budget", "show"])
    assert "nothing runs on before" in capsys.readouterr().err
    run(["--data-dir", "before", "budget", "show", "--data-dir", "behind"])
    assert "nothing runs on behind" in capsys.readouterr().err


def test_the_environment_names_the_data_directory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUARTERDECK_DATA_DIR counts where no option is given."""
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", "elsewhere")
    run(["budget", "show"])
    assert "nothing runs on elsewhere" in capsys.readouterr().err


def test_a_bus_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A --url where nobody listens is exit code 4 and names the address."""
    assert run(["budget", "show", "--url", "nats://127.0.0.1:9"]) == 4
    err = capsys.readouterr().err
    assert err.startswith("QD-BUS-001 ")
    assert "127.0.0.1:9" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(Rejected(code="QD-BUD-002", reason="over_limit", message="over")), 3),
        (Unavailable("gone"), 4),
        (VersionConflict("moved"), 4),
        (SetupProblem("nothing runs", code="QD-CLI-001"), 4),
        (SetupProblem("no such file", code="QD-CLI-010"), 2),
        (SetupProblem("port in use", code="QD-SET-003"), 4),
        (ContractViolation("not a name"), 2),
        (QuarterdeckError("a bug over there", code="QD-GEN-002"), 1),
        (ContractViolation("a bug over there", code="QD-GEN-002"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: QuarterdeckError, code: int) -> None:
    """3 is a rule, 4 is not there, 2 is what was typed, 1 a bug on the other side."""
    assert exit_code(error) == code


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`secret put NAME VALUE` is QD-CLI-031, and the value stands in no output."""
    assert run(["secret", "put", "desk", "hunter2-hunter2"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("QD-CLI-031 ")
    assert "hunter2" not in out + err


@pytest.mark.parametrize(
    ("amount", "code"), [("five", "QD-CLI-004"), ("-1", "QD-CLI-002"), ("nan", "QD-CLI-004")]
)
def test_what_is_no_money_is_refused(amount: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit is a finite amount of zero or more, or none."""
    assert run(["budget", "set", "workspace", amount]) == 2
    assert capsys.readouterr().err.startswith(code)


def test_a_scope_that_is_none_is_refused_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """The contract's own pattern is asked first; the hint lists what a scope may be."""
    assert run(["budget", "set", "team/x", "5"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("QD-CLI-002 scope")
    assert "crew/NAME" in err


def test_a_bug_is_one_line_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw is QD-GEN-001 and exit code 1."""
    monkeypatch.setattr("quarterdeck.cli.main.build", lambda names: 1 / 0)
    assert run(["budget", "show"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("QD-GEN-001 a bug: ZeroDivisionError")
    assert "Traceback" not in err


def test_an_interrupt_ends_quietly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is exit code 130 and no message."""

    def interrupted(_names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quarterdeck.cli.main.build", interrupted)
    assert run(["budget", "show"]) == 130
    assert capsys.readouterr() == ("", "")
