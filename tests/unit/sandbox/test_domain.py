"""Stories of the sandbox decider, and what it takes from and leaves on the host."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from quarterdeck.contracts.mission import Artifact, RunLimits
from quarterdeck.contracts.sandbox import (
    ObserveSandbox,
    SandboxEnded,
    SandboxRequested,
    SandboxStarted,
    SandboxStopRequested,
    SandboxUnstartable,
    StartSandbox,
    StopSandbox,
)
from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.testkit.stories import Story, given
from services.sandbox import domain
from services.sandbox.adapters.files import OUTPUTS, RunFiles, collect, unpack

START = StartSandbox(
    mission_id="m1",
    run_id="r1",
    crew="ops",
    agent="writer",
    task="main",
    attempt=1,
    goal="g",
    program=Artifact(name="p.tar", sha256="0" * 64, size_bytes=1),
    argv=("python",),
    inputs=(),
    limits=RunLimits(),
)
REQUESTED = SandboxRequested(mission_id="m1", run_id="r1", crew="ops", agent="writer", task="main", attempt=1)


def seen(**fields: object) -> ObserveSandbox:
    return ObserveSandbox(mission_id="m1", run_id="r1", **fields)  # type: ignore[arg-type]


def requested() -> Story:
    return given(domain, REQUESTED)


def test_a_run_is_started_once() -> None:
    """The same run again is known, whatever has become of it."""
    first = given(domain).when(START)
    first.then(REQUESTED)
    first.story.when(START, id="c2").then_nothing()
    over = first.story.when(seen(kind="lost"), id="c3").story
    over.when(START, id="c4").then_nothing()


def test_a_run_starts_and_ends() -> None:
    """What the driver saw becomes one started and one ended."""
    started = requested().when(seen(started=True, driver="bubblewrap", limits_held={"memory": "cgroup"}))
    started.then(
        SandboxStarted(mission_id="m1", run_id="r1", driver="bubblewrap", limits_held={"memory": "cgroup"})
    )
    started.story.when(seen(started=True), id="c2").then_nothing()
    ended = started.story.when(seen(kind="exited", exit_code=3, wall_ms=5, output_tail="bye"), id="c3")
    ended.then(
        SandboxEnded(
            mission_id="m1",
            run_id="r1",
            kind="exited",
            exit_code=3,
            wall_ms=5,
            peak_memory_bytes=0,
            outputs=(),
            output_tail="bye",
        )
    )
    ended.story.when(seen(kind="lost"), id="c4").then_nothing()
    assert ended.story.state.open == frozenset()


def test_a_sandbox_that_could_not_start_says_why() -> None:
    """The driver's code and words are the event's."""
    outcome = requested().when(seen(kind="unstartable", code="QD-SBX-102", message="user namespaces"))
    outcome.then(
        SandboxUnstartable(mission_id="m1", run_id="r1", code="QD-SBX-102", message="user namespaces")
    )


def test_stopping_is_asked_once() -> None:
    """A second stop, or one after the end, changes nothing."""
    stop = StopSandbox(mission_id="m1", run_id="r1", reason="cancelled")
    asked = requested().when(stop)
    asked.then(SandboxStopRequested(mission_id="m1", run_id="r1", reason="cancelled"))
    asked.story.when(stop, id="c2").then_nothing()
    requested().when(seen(kind="exited", exit_code=0)).story.when(stop, id="c3").then_nothing()


def test_an_unknown_run_is_refused() -> None:
    """There is nothing to stop or observe of a run that was never requested."""
    given(domain).when(StopSandbox(mission_id="m1", run_id="r9")).refused("QD-SBX-001")
    given(domain).when(seen(kind="lost")).refused("QD-SBX-001")


class Shelf:
    """An artifact shelf in memory, in the shape of quarterdeck.bus.artifacts.Artifacts."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def put(self, content: bytes) -> str:
        self.kept.append(content)
        return "0" * 64


async def test_only_plain_files_are_carried_out(tmp_path: Path) -> None:
    """A link to a host file, a pipe, a folder and an odd name in outputs/ are left where they are."""
    secret = tmp_path / "secret"
    secret.write_text("host file")
    outputs = tmp_path / "run" / "work" / OUTPUTS
    outputs.mkdir(parents=True)
    (outputs / "report.md").write_text("fine")
    (outputs / "link.md").symlink_to(secret)
    os.mkfifo(outputs / "pipe.md")
    (outputs / "folder").mkdir()
    (outputs / "-odd\nname").write_text("no")
    shelf = Shelf()
    found = await collect(RunFiles(tmp_path / "run"), shelf)  # type: ignore[arg-type]
    assert [artifact.name for artifact in found] == ["report.md"]
    assert shelf.kept == [b"fine"]


async def test_an_outputs_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """An agent that swaps its outputs folder for a link to the host gets nothing collected."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file.md").write_text("host file")
    work = tmp_path / "run" / "work"
    work.mkdir(parents=True)
    (work / OUTPUTS).symlink_to(tmp_path / "host")
    assert await collect(RunFiles(tmp_path / "run"), Shelf()) == ()  # type: ignore[arg-type]


def packed(*members: tuple[str, bytes, int]) -> bytes:
    """A tar of (name, kind, size) members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, kind, size in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname, member.mode = kind, size, "/etc/passwd", 0o755
            archive.addfile(member, io.BytesIO(bytes(size)))
    return content.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        ("../escape", tarfile.REGTYPE, 2),
        ("/tmp/escape-of-a-program", tarfile.REGTYPE, 2),
        ("a/../../escape", tarfile.REGTYPE, 2),
        ("link", tarfile.SYMTYPE, 0),
        ("link", tarfile.LNKTYPE, 0),
        ("pipe", tarfile.FIFOTYPE, 0),
        ("device", tarfile.CHRTYPE, 0),
    ],
)
def test_a_program_is_plain_files_below_its_folder(tmp_path: Path, member: tuple[str, bytes, int]) -> None:
    """A tar that points outside, or holds a link, a pipe or a device, is refused with a code."""
    target = tmp_path / "program"
    target.mkdir()
    with pytest.raises(SetupProblem, match="QD-ART-004"):
        unpack(packed(member), target)
    assert list(tmp_path.iterdir()) == [target]
    assert not Path("/tmp/escape-of-a-program").exists()


def test_a_program_is_unpacked_as_it_was_packed(tmp_path: Path) -> None:
    """Files in folders, and whether they may be run; the same name twice is refused."""
    unpack(packed(("main.py", tarfile.REGTYPE, 5), ("lib/part.py", tarfile.REGTYPE, 7)), tmp_path)
    assert (tmp_path / "main.py").stat().st_size == 5
    assert (tmp_path / "lib" / "part.py").stat().st_size == 7
    assert (tmp_path / "main.py").stat().st_mode & 0o777 == 0o755
    with pytest.raises(SetupProblem, match="QD-ART-004"):
        unpack(packed(("main.py", tarfile.REGTYPE, 5)), tmp_path)


def test_what_is_not_a_tar_is_refused(tmp_path: Path) -> None:
    """A damaged program has a code of its own."""
    with pytest.raises(SetupProblem, match="QD-ART-004"):
        unpack(b"not a tar", tmp_path)
