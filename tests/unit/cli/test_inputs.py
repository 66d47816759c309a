"""A mission's inputs are checked before anything is sent."""

import os
from pathlib import Path

import pytest

from quarterdeck.bus.artifacts import MAX_BYTES
from quarterdeck.cli.main import run
from quarterdeck.client.files import read_input, read_inputs
from quarterdeck.kernel.errors import SetupProblem


def refused(path: Path, *, binary: bool = False) -> SetupProblem:
    with pytest.raises(SetupProblem) as problem:
        read_input(path, binary=binary)
    return problem.value


def test_a_text_file_is_taken_as_it_is(tmp_path: Path) -> None:
    """Also in Latin-1: agents read what people have."""
    (tmp_path / "a.csv").write_bytes("café;1\n".encode("latin-1"))
    assert read_input(tmp_path / "a.csv") == b"caf\xe9;1\n"


def test_a_missing_file_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    """QD-CLI-010 names the path, and the directory that relative paths start from."""
    problem = refused(tmp_path / "none.csv")
    assert problem.code == "QD-CLI-010"
    assert "none.csv" in problem.message
    assert str(Path.cwd()) in problem.hint


def test_a_directory_is_no_input(tmp_path: Path) -> None:
    """QD-CLI-011, for folders and for pipes."""
    assert refused(tmp_path).code == "QD-CLI-011"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").code == "QD-CLI-011"


def test_an_empty_file_is_no_input(tmp_path: Path) -> None:
    """QD-CLI-012."""
    (tmp_path / "a.csv").touch()
    assert refused(tmp_path / "a.csv").code == "QD-CLI-012"


def test_a_binary_file_has_to_be_meant(tmp_path: Path) -> None:
    """QD-CLI-013 unless the person says so; UTF-16 is called by its name."""
    (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    assert refused(tmp_path / "a.csv").code == "QD-CLI-013"
    assert read_input(tmp_path / "a.csv", binary=True).startswith(b"\x89PNG")
    (tmp_path / "b.csv").write_bytes("a;b\n".encode("utf-16"))
    assert "UTF-16" in refused(tmp_path / "b.csv").message


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    """QD-CLI-014 with both numbers; a file of just the limit passes."""
    with (tmp_path / "big.csv").open("wb") as file:
        file.write(b"x")
        file.truncate(MAX_BYTES + 1)
    problem = refused(tmp_path / "big.csv", binary=True)
    assert problem.code == "QD-CLI-014"
    assert f"{MAX_BYTES + 1:,}" in problem.message
    with (tmp_path / "big.csv").open("r+b") as file:
        file.truncate(MAX_BYTES)
    assert len(read_input(tmp_path / "big.csv", binary=True)) == MAX_BYTES


def test_a_name_that_the_contract_refuses_is_told_at_once(tmp_path: Path) -> None:
    """QD-CLI-016 for a name that could not lie in a sandbox's /inputs."""
    (tmp_path / "-rf").write_text("x")
    assert refused(tmp_path / "-rf").code == "QD-CLI-016"


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    """They would lie in one folder: QD-CLI-017."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text("1")
    with pytest.raises(SetupProblem) as problem:
        read_inputs([tmp_path / "a" / "x.csv", tmp_path / "b" / "x.csv"])
    assert problem.value.code == "QD-CLI-017"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ([], "QD-CLI-002"),
        (["--goal", "x", "--goal-file", "g.md"], "QD-CLI-002"),
        (["--goal", "  "], "QD-CLI-018"),
        (["--goal", "x" * 20_001], "QD-CLI-018"),
        (["--goal-file", "none.md"], "QD-CLI-010"),
        (["--goal", "x", "--input", "none.csv"], "QD-CLI-010"),
        (["--goal", "x", "--budget", "much"], "QD-CLI-004"),
        (["--goal", "x", "--id", "no id"], "QD-CLI-002"),
    ],
)
def test_a_request_that_can_not_be_one_is_refused_before_the_bus_is_looked_for(
    more: list[str],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 with its own code, though nothing runs here."""
    monkeypatch.chdir(tmp_path)
    assert run(["mission", "submit", "--crew", "analysts", *more]) == 2
    assert capsys.readouterr().err.startswith(code)
