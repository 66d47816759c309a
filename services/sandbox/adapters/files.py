"""A run's files on the host: its program and inputs brought in, its outputs carried out.

Both directions are hostile: a program is a tar from the bus, and what lies in the work directory
afterwards was written by the agent, so no link is followed and nothing but regular files is read.
"""

import io
import os
import shutil
import stat
import tarfile
from asyncio import to_thread
from pathlib import Path, PurePosixPath

from quarterdeck.bus.artifacts import Artifacts
from quarterdeck.contracts.mission import Artifact
from quarterdeck.contracts.sandbox import StartSandbox
from quarterdeck.kernel.errors import SetupProblem
from services.sandbox.ports import RunFiles

MAX_OUTPUTS = 64
MAX_OUTPUT_BYTES = 16 << 20
MAX_PROGRAM_BYTES = 64 << 20
OUTPUTS = "outputs"


class RunFolders:
    """See `ports.Folders`: one folder a run below `runs_dir`."""

    def __init__(self, runs_dir: Path, artifacts: Artifacts) -> None:
        self._runs_dir = runs_dir
        self._artifacts = artifacts

    async def prepare(self, start: StartSandbox) -> RunFiles:
        return await prepare(self._runs_dir / start.run_id, start, self._artifacts)

    async def collect(self, files: RunFiles) -> tuple[Artifact, ...]:
        return await collect(files, self._artifacts)

    async def remove(self, files: RunFiles) -> None:
        await to_thread(shutil.rmtree, files.root, ignore_errors=True)


async def prepare(directory: Path, start: StartSandbox, artifacts: Artifacts) -> RunFiles:
    """Bring program and inputs into `directory`. Raises SetupProblem (QD-ART-…) and Unavailable."""
    files = RunFiles(directory.resolve())
    shutil.rmtree(files.root, ignore_errors=True)
    for folder in (files.program, files.inputs, files.work, files.work / OUTPUTS):
        folder.mkdir(parents=True, mode=0o755)
    unpack(await artifacts.get(start.program.sha256), files.program)
    for artifact in start.inputs:
        path = files.inputs / artifact.name
        path.write_bytes(await artifacts.get(artifact.sha256))
        path.chmod(0o644)
    return files


def unpack(content: bytes, target: Path) -> None:
    """The plain files and folders of a tar, in `target`. Raises SetupProblem (QD-ART-004) for anything else.

    Not `extractall(filter="data")`: Pythons before 3.11.4 have no filters.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = archive.getmembers()
            if sum(member.size for member in members) > MAX_PROGRAM_BYTES:
                raise SetupProblem(
                    f"the program unpacks to more than {MAX_PROGRAM_BYTES:,} bytes", code="QD-ART-004"
                )
            for member in members:
                _unpack_member(archive, member, target)
    except (tarfile.TarError, OSError) as error:
        raise SetupProblem(f"the program can't be unpacked: {error}", code="QD-ART-004") from None


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
        raise SetupProblem(
            f"the program holds {member.name[:80]!r}, which is no plain file below its folder",
            code="QD-ART-004",
            hint="pack it with `quarterdeck apply`",
        )
    path = target / name
    if member.isdir():
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    packed = archive.extractfile(member)
    assert packed is not None
    # Exclusive: a second member of the same name would write through what the first one put there.
    with path.open("xb") as file:
        shutil.copyfileobj(packed, file)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


async def collect(files: RunFiles, artifacts: Artifacts) -> tuple[Artifact, ...]:
    """Up to MAX_OUTPUTS regular files of at most MAX_OUTPUT_BYTES from /work/outputs, by name."""
    outputs = []
    for name in _names(files.work / OUTPUTS)[:MAX_OUTPUTS]:
        content = _read(files.work / OUTPUTS, name)
        if content is not None:
            sha256 = await artifacts.put(content)
            outputs.append(Artifact(name=name, sha256=sha256, size_bytes=len(content)))
    return tuple(outputs)


def _names(folder: Path) -> list[str]:
    try:
        if folder.is_symlink():
            return []
        return sorted(entry.name for entry in os.scandir(folder) if _plain(entry.name))
    except OSError:
        return []


def _plain(name: str) -> bool:
    """May be an artifact's name (contracts.mission.FileName)."""
    return (
        0 < len(name) <= 120
        and (name[0].isalnum() or name[0] == "_")
        and all(c.isalnum() or c in "._ -" for c in name)
        and name.isascii()
    )


def _read(folder: Path, name: str) -> bytes | None:
    """INV-9: the agent may have put a link or a pipe there; neither is opened."""
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        finally:
            os.close(directory)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_OUTPUT_BYTES:
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(MAX_OUTPUT_BYTES)
    finally:
        os.close(handle)
