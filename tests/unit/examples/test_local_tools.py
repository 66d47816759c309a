"""The agent's own tools: what they answer when a program misbehaves or a file is not what it should be."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.unit.examples.driver import LocalTools

import local_tools  # isort: skip  # the agent's own: driver put its folder on the path


@pytest.fixture
def tools(tmp_path: Path) -> LocalTools:
    return LocalTools(tmp_path)


async def test_a_kept_program_can_be_imported_by_a_later_one(tools: LocalTools) -> None:
    """save_as keeps the text; a changed text of the same length in the same second is what counts."""
    for value in ("1", "2"):
        await tools.call("run_python", {"code": f"VALUE = {value}", "save_as": "kept.py"})
        read = await tools.call("run_python", {"code": "import kept; print(kept.VALUE)"})
        assert (read.text, read.ok) == (value, True)


async def test_a_failing_program_shows_its_traceback_and_exit_code(tools: LocalTools) -> None:
    """Both streams in the order they were written, then the code."""
    result = await tools.call("run_python", {"code": "print('before', flush=True)\nraise SystemExit(7)"})
    assert (result.text, result.ok) == ("before\n[exit code 7]", False)
    result = await tools.call("run_python", {"code": "1 / 0"})
    assert "ZeroDivisionError" in result.text


async def test_endless_output_is_cut_and_does_not_block(tools: LocalTools) -> None:
    """Far more than a pipe holds: the start is kept, the rest is dropped and said so."""
    result = await tools.call("run_python", {"code": "print('x' * 5_000_000)"})
    assert result.ok
    assert len(result.text) < local_tools.OUTPUT_LIMIT_CHARS + 40
    assert result.text.endswith("[more output was cut]")


async def test_a_program_that_does_not_end_is_ended_with_its_children(
    tools: LocalTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the limit the whole process group is gone and the model is told."""
    monkeypatch.setattr(local_tools, "RUN_LIMIT_S", 1)
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "child.wait()"
    )
    result = await tools.call("run_python", {"code": code})
    assert (result.text, result.ok) == ("error: the program was still running after 1 seconds", False)
    child = int((tmp_path / "child").read_text())
    assert await asyncio.to_thread(_ended, child)


def _ended(pid: int) -> bool:
    """A killed process may stay a zombie until its new parent looks: that counts as ended."""
    for _ in range(10_000):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        os.sched_yield()
    return False


@pytest.mark.parametrize("name", ["../out.py", "/tmp/out.py", "csv", "A.py", ".py", "a b.py"])
async def test_only_plain_names_are_kept(name: str, tools: LocalTools, tmp_path: Path) -> None:
    """A program is kept in the working folder or nowhere."""
    result = await tools.call("run_python", {"code": "print(1)", "save_as": name})
    assert (result.text[:6], result.ok) == ("error:", False)
    assert list(tmp_path.iterdir()) == []


async def test_code_that_is_no_text_is_an_answer(tools: LocalTools) -> None:
    """A lone surrogate, which JSON can carry, can't be written as UTF-8."""
    result = await tools.call("run_python", {"code": "print('\ud800')"})
    assert not result.ok


async def test_a_file_is_read_whole_and_up_to_a_limit(tools: LocalTools, tmp_path: Path) -> None:
    """Exactly the text; past the limit, the start and a word about it."""
    (tmp_path / "a.md").write_text("# ü\n\ntext\n", encoding="utf-8")
    assert (await tools.call("read_file", {"path": "a.md"})).text == "# ü\n\ntext\n"
    (tmp_path / "long").write_text("x" * (local_tools.READ_LIMIT_CHARS + 1))
    result = await tools.call("read_file", {"path": str(tmp_path / "long")})
    assert result.text == "x" * local_tools.READ_LIMIT_CHARS + "\n[cut after 60,000 characters]"


async def test_what_is_no_text_file_is_an_answer(tools: LocalTools, tmp_path: Path) -> None:
    """Missing, a folder, a device, binary: words for the model."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    for path in ("missing", ".", "/dev/zero", "binary", "a\x00b"):
        result = await tools.call("read_file", {"path": path})
        assert (result.text[:6], result.ok) == ("error:", False)
