"""An agent's folder as a tar: the same files give the same bytes, wherever and whenever they are packed."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from quarterdeck.kernel.errors import SetupProblem

MAX_TAR_BYTES = 16 << 20
MAX_FILES = 5_000
LEFT_OUT = {"__pycache__", "node_modules"}
"""And whatever begins with a dot: `.git`, `.venv`, and `.env`, which is where secrets lie about."""


def pack(folder: Path) -> bytes:
    """A tar of the regular files below `folder`: sorted, no times, no owners, modes 0644 or 0755.

    A link to a file inside becomes that file. Raises SetupProblem: QD-CLI-023 not a folder, or nothing in it;
    -024 more than 16 MiB or 5,000 files; -025 a link that leads out, or something that is no file.
    """
    if not folder.is_dir():
        raise SetupProblem(
            f"the program {folder} is not a folder",
            code="QD-CLI-023",
            hint="`program` names a folder; it is mounted at /agent in the sandbox",
        )
    root = folder.resolve()
    packed = io.BytesIO()
    count = 0
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in _files(folder):
            count += 1
            content = _content(path, root)
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = len(content)
            member.mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            tar.addfile(member, io.BytesIO(content))
            if packed.tell() > MAX_TAR_BYTES or count > MAX_FILES:
                raise SetupProblem(
                    f"the program {folder} has more than {MAX_TAR_BYTES >> 20} MiB or {MAX_FILES:,} files",
                    code="QD-CLI-024",
                    hint="keep inputs and libraries out of it; give files to a mission with --input",
                )
    if not count:
        raise SetupProblem(
            f"there is no file in the program {folder}", code="QD-CLI-023", hint="is it the right folder?"
        )
    return packed.getvalue()


def names(packed: bytes) -> frozenset[str]:
    """The files in what `pack` returned."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return frozenset(tar.getnames())


def _files(folder: Path) -> Iterator[Path]:
    """Depth first, sorted by name; folders that are links are met as one path and refused by `_content`."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in LEFT_OUT or entry.name.endswith(".pyc"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)


def _content(path: Path, root: Path) -> bytes:
    real = path.resolve()
    if not real.is_relative_to(root):
        raise SetupProblem(
            f"{path} is a link that leads out of the program, to {real}",
            code="QD-CLI-025",
            hint="copy what it points to into the folder",
        )
    if not real.is_file():
        kind = "a link to a folder" if real.is_dir() else "no regular file"
        raise SetupProblem(f"{path} is {kind}", code="QD-CLI-025", hint="a program is made of plain files")
    try:
        if real.stat().st_size > MAX_TAR_BYTES:
            return bytes(MAX_TAR_BYTES)  # more than a tar may hold: `pack` says so without reading it
        return real.read_bytes()
    except OSError as error:
        raise SetupProblem(f"{path} can't be read: {error.strerror}", code="QD-CLI-015") from None
