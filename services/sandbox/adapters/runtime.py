"""The root filesystem of a sandbox, the same under every driver, and the checks of a spec against it.

It is the host's own runtime, read-only: `/usr`, the loader's cache, and the Python of this process with its
virtual environment, so that an agent has an interpreter and its SDKs without an image. Everything else is
made up.
"""

import os
import posixpath
import stat
import sys
from functools import cache
from pathlib import Path

from msgspec import Struct

from quarterdeck.kernel.ids import is_token
from services.sandbox.ports import WORK_DIR, CommandNotFound, SandboxSpec, SpecRefused

AGENT_ID = 1000
"""The uid and gid that the agent sees as its own."""
MAX_MOUNTS = 32
MAX_TEXT_BYTES = 64 << 10
MAX_LINKS = 40
DEFAULT_PATH = "/bin:/usr/bin"
"""Where execvp(3) looks when the environment has no PATH."""
RESERVED = ("/usr", "/bin", "/sbin", "/lib", "/etc", "/proc", "/sys", "/dev", "/tmp", WORK_DIR)  # noqa: S108 - inside

_TOP_LEVEL = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Named one by one: an environment made in place (`python -m venv .`) has the whole project beside it.
_PYTHON_PARTS = ("bin", "lib", "lib64", "libexec", "share", "pyvenv.cfg")
_ETC = {
    "/etc/passwd": f"agent:x:{AGENT_ID}:{AGENT_ID}:agent:{WORK_DIR}:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "/etc/group": f"agent:x:{AGENT_ID}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


class Bind(Struct, frozen=True):
    """The host's `source` appears at `target`."""

    source: str
    target: str
    writable: bool = False


class Root(Struct, frozen=True, kw_only=True):
    """A root filesystem: `binds`; `symlinks` as (path, what it says); `files` as (path, content)."""

    binds: tuple[Bind, ...]
    symlinks: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, bytes], ...]


@cache
def host_root() -> Root:
    """What this machine and this interpreter have to show, as it was when first asked."""
    binds = {"/usr": Bind("/usr", "/usr")}
    links: dict[str, str] = {}
    parts = [f"/{name}" for name in _TOP_LEVEL]
    prefixes = (
        os.path.abspath(sys.base_prefix),
        os.path.realpath(sys.base_prefix),
        os.path.abspath(sys.prefix),
    )
    for prefix in dict.fromkeys(prefixes):
        if not _within(prefix, "/usr"):
            parts += [posixpath.join(prefix, name) for name in _PYTHON_PARTS]
    for path in [*parts, "/etc/ld.so.cache"]:
        if os.path.islink(path):
            links[path] = str(Path(path).readlink())
        elif os.path.exists(path):
            binds[path] = Bind(path, path)
    files = tuple((path, text.encode()) for path, text in _ETC.items())
    return Root(binds=tuple(binds.values()), symlinks=tuple(links.items()), files=files)


def plan(root: Root, spec: SandboxSpec) -> Root:
    """`root` with the spec's own directories. Raises SpecRefused and CommandNotFound for what can't work."""
    _check_values(spec)
    targets = [bind.target for bind in root.binds] + [path for path, _ in root.symlinks] + list(RESERVED)
    own: list[Bind] = []
    for mount in spec.mounts:
        source = _source(mount.source, "mount")
        target = posixpath.normpath(mount.target)
        if target != mount.target or not target.startswith("/") or target == "/":
            raise SpecRefused(f"the mount target {mount.target!r} is not an absolute, normal path")
        if any(_within(target, taken) or _within(taken, target) for taken in targets):
            raise SpecRefused(
                f"the mount target {target!r} is taken",
                code="QD-SBX-123",
                hint="mount below /agent or /inputs",
            )
        targets.append(target)
        own.append(Bind(source, target, mount.writable))
    own.append(Bind(_source(spec.work_dir, "work directory", directory=True), WORK_DIR, writable=True))
    whole = Root(binds=(*root.binds, *own), symlinks=root.symlinks, files=root.files)
    find_command(whole, spec)
    return whole


def find_command(root: Root, spec: SandboxSpec) -> str:
    """The host path of what `argv[0]` names inside. Raises CommandNotFound.

    Looked up before anything starts, because neither bwrap nor a container runtime says reliably whether a
    1 or 127 came from the command or from its absence.
    """
    name = spec.argv[0]
    if "/" in name:
        candidates = [posixpath.join(WORK_DIR, name)]
    else:
        path = spec.env.get("PATH", DEFAULT_PATH)
        candidates = [posixpath.join(WORK_DIR, folder, name) for folder in path.split(":")]
    for candidate in candidates:
        found = resolve(root, candidate)
        if found is not None and os.path.isfile(found) and os.stat(found).st_mode & 0o111:
            return found
    raise CommandNotFound(
        f"run {spec.run_id}: the sandbox has no command {name!r}",
        hint=f"looked at {', '.join(candidates)[:400]}; give a path inside the sandbox or set PATH in env",
    )


def resolve(root: Root, path: str) -> str | None:
    """The host path behind a path inside, links followed as the sandbox would; None when nothing is there."""
    links = dict(root.symlinks)
    by_target = {bind.target: bind.source for bind in root.binds}
    todo = [part for part in path.split("/") if part]
    at = "/"
    for _ in range(MAX_LINKS * 64):
        if not todo:
            return _host_path(by_target, at)
        part = todo.pop(0)
        if part == ".." and not _is_there(root, at):
            return None  # as the kernel sees it: there is no parent of what does not exist
        at = posixpath.normpath(posixpath.join(at, part))
        said = links.get(at)
        host = _host_path(by_target, at)
        if said is None and host is not None and os.path.islink(host):
            said = str(Path(host).readlink())
        if said is not None:
            todo = [step for step in said.split("/") if step] + todo
            at = "/" if said.startswith("/") else posixpath.dirname(at)
    return None


def make_readable_by(uid: int, gid: int, root: Root) -> None:
    """A root service hands what is writable to the agent's uid, and refuses what the agent couldn't read.

    Raises SpecRefused (QD-SBX-122). Links are never followed: an earlier attempt may have left them.
    """
    for bind in root.binds:
        if bind.writable:
            _hand_over(bind.source, uid, gid)
        elif not _others_may_read(bind.source):
            raise SpecRefused(
                f"{bind.source} can't be read by the agent, which never runs as root",
                code="QD-SBX-122",
                hint="make it readable for others (chmod -R o+rX)",
            )


def _hand_over(top: str, uid: int, gid: int) -> None:
    os.chown(top, uid, gid, follow_symlinks=False)
    for _, names, files, folder in os.fwalk(
        top
    ):  # by descriptors: nothing can be swapped for a link meanwhile
        for name in (*names, *files):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)


def _others_may_read(path: str) -> bool:
    mode = os.stat(path).st_mode
    needed = 0o005 if stat.S_ISDIR(mode) else 0o004
    return mode & needed == needed


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_there(root: Root, path: str) -> bool:
    """`path` is shown, or is a folder on the way to something that is."""
    shown = [*(bind.target for bind in root.binds), *(link for link, _ in root.symlinks)]
    on_the_way = any(_within(target, path) for target in shown)
    return on_the_way or _host_path({bind.target: bind.source for bind in root.binds}, path) is not None


def _host_path(by_target: dict[str, str], path: str) -> str | None:
    at = path
    while at != "/":
        if at in by_target:
            host = by_target[at] + path[len(at) :]
            return host if os.path.lexists(host) else None
        at = posixpath.dirname(at)
    return None


def _source(path: str, what: str, *, directory: bool = False) -> str:
    if not os.path.isabs(path):
        raise SpecRefused(f"the {what} {path!r} is not an absolute path")
    if not os.path.isdir(path) and (directory or not os.path.isfile(path)):
        wanted = "directory" if directory else "file or directory"
        raise SpecRefused(f"the {what} {path!r} is not a {wanted} on this machine", code="QD-SBX-122")
    return os.path.realpath(path)


def _check_values(spec: SandboxSpec) -> None:
    """Bounds that the spec's docstrings promise, and NULs, which no system call can carry."""
    limits = spec.limits
    least = min(limits.memory_bytes, limits.processes, limits.file_bytes, limits.wall_ms, limits.output_bytes)
    texts = [*spec.argv, *spec.env, *spec.env.values()]
    problem = ""
    if not is_token(spec.run_id):
        problem = f"run id {spec.run_id[:80]!r} is not a token"
    elif not spec.argv or not spec.argv[0]:
        problem = "argv is empty"
    elif least < 1:
        problem = "a limit is below 1"
    elif not 1 <= spec.edge_port <= 65_535:
        problem = f"edge port {spec.edge_port} is not between 1 and 65535"
    elif len(spec.mounts) > MAX_MOUNTS:
        problem = f"{len(spec.mounts)} mounts, at most {MAX_MOUNTS} are possible"
    elif any("\0" in text for text in texts) or any("=" in name or not name for name in spec.env):
        problem = "argv or env holds a NUL, or a variable name that is empty or holds ="
    elif not _fits(texts):
        problem = f"argv and env are larger than {MAX_TEXT_BYTES} bytes, or not text"
    if problem:
        raise SpecRefused(f"run {spec.run_id[:80]}: {problem}")


def _fits(texts: list[str]) -> bool:
    try:
        return sum(len(text.encode()) for text in texts) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
