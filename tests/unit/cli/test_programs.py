"""An agent's folder becomes the same tar, whoever packs it and whenever."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from quarterdeck.client.programs import MAX_TAR_BYTES, names, pack
from quarterdeck.kernel.errors import SetupProblem


def folder(at: Path, order: list[str]) -> Path:
    at.mkdir(parents=True)
    for name in order:
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(f"# {name}\n")
    return at


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither the order in which they were written, nor times, owners or umask change the tar."""
    files = ["main.py", "lib/a.py", "lib/b.py", "z.txt"]
    one, other = folder(tmp_path / "one", files), folder(tmp_path / "other", files[::-1])
    os.utime(other / "main.py", (1, 1))
    (other / "z.txt").chmod(0o600)
    assert pack(one) == pack(other)
    with tarfile.open(fileobj=io.BytesIO(pack(one))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(files)
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}


def test_what_may_be_executed_stays_so(tmp_path: Path) -> None:
    """Modes are 0755 or 0644, nothing else."""
    program = folder(tmp_path / "p", ["run.sh", "data.txt"])
    (program / "run.sh").chmod(0o700)
    with tarfile.open(fileobj=io.BytesIO(pack(program))) as tar:
        assert {member.name: oct(member.mode) for member in tar} == {"data.txt": "0o644", "run.sh": "0o755"}


def test_hidden_files_and_caches_stay_at_home(tmp_path: Path) -> None:
    """`.env` is where secrets lie about; caches differ from machine to machine."""
    program = folder(tmp_path / "p", ["main.py", ".env", ".git/config", "__pycache__/main.pyc", "old.pyc"])
    assert names(pack(program)) == {"main.py"}


def test_a_link_inside_becomes_the_file(tmp_path: Path) -> None:
    """What it points to is packed under the link's name; no link goes into the tar."""
    program = folder(tmp_path / "p", ["main.py"])
    (program / "also.py").symlink_to("main.py")
    with tarfile.open(fileobj=io.BytesIO(pack(program))) as tar:
        assert all(member.isreg() for member in tar)
        copied = tar.extractfile("also.py")
        assert copied is not None
        assert copied.read() == b"# main.py\n"


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside.txt", "..", "folder"])
def test_a_link_that_leads_out_or_to_a_folder_is_refused(target: str, tmp_path: Path) -> None:
    """QD-CLI-025 names the link."""
    program = folder(tmp_path / "p", ["main.py", "folder/x.py"])
    (tmp_path / "outside.txt").write_text("x")
    (program / "link").symlink_to(target)
    with pytest.raises(SetupProblem) as problem:
        pack(program)
    assert problem.value.code == "QD-CLI-025"
    assert "link" in problem.value.message


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Only plain files are read."""
    os.mkfifo(folder(tmp_path / "p", ["main.py"]) / "pipe")
    with pytest.raises(SetupProblem) as problem:
        pack(tmp_path / "p")
    assert problem.value.code == "QD-CLI-025"


def test_a_program_has_a_size(tmp_path: Path) -> None:
    """QD-CLI-024 above 16 MiB, QD-CLI-023 for a folder with nothing to run and for what is no folder."""
    program = folder(tmp_path / "p", ["main.py"])
    with (program / "big.bin").open("wb") as file:
        file.truncate(MAX_TAR_BYTES * 4)
    with pytest.raises(SetupProblem) as problem:
        pack(program)
    assert problem.value.code == "QD-CLI-024"
    for none in (folder(tmp_path / "empty", []), program / "main.py", tmp_path / "missing"):
        with pytest.raises(SetupProblem) as problem:
            pack(none)
        assert problem.value.code == "QD-CLI-023"
