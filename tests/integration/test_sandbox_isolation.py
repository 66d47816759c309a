"""What every driver has to hold, tried for real: nothing gets out, limits hold, ends are told apart."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from quarterdeck.testkit.eventually import eventually
from services.sandbox.adapters import memory
from services.sandbox.adapters.choose import drivers
from services.sandbox.ports import (
    PYTHON,
    CommandNotFound,
    Driver,
    Exit,
    Limits,
    Mount,
    SandboxSpec,
    SpecRefused,
    Stream,
)

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
HOSTILE = HERE / "hostile.py"
DOCKER_SOCKET = "/var/run/docker.sock"
ENV = {"LANG": "C.UTF-8", "GIVEN": "yes"}

Run = Callable[..., Any]


def missing(name: str) -> str:
    """Why the driver `name` can't be tried here; empty when it can."""
    if name == "docker":
        try:
            with socket.socket(socket.AF_UNIX) as daemon:
                daemon.connect(DOCKER_SOCKET)
        except OSError as error:
            return f"no Docker daemon at {DOCKER_SOCKET} ({error.strerror}): install docker.io, start dockerd"
    return ""


@pytest.fixture(scope="module", params=["bubblewrap", "docker"])
def driver_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if reason := missing(name):
        pytest.skip(reason)
    return name


@pytest.fixture
async def driver(driver_name: str) -> AsyncIterator[Driver]:
    made = drivers()[driver_name]
    yield made
    await made.close()


@pytest.fixture
def run(driver: Driver, tmp_path: Path) -> Run:
    """Run Python code (or `argv`) to its end."""

    async def run(
        code: str = "", *, argv: tuple[str, ...] = (), env: dict[str, str] = ENV, **limits: int
    ) -> Exit:
        sandbox = await driver.start(spec(tmp_path, code, argv=argv, env=env, **limits))
        with sandbox.edge:
            return await sandbox.wait()

    return run


def spec(
    folder: Path,
    code: str = "",
    *,
    argv: tuple[str, ...] = (),
    env: dict[str, str] = ENV,
    mounts: tuple[Mount, ...] = (),
    run_id: str = "run-1",
    **limits: int,
) -> SandboxSpec:
    work = folder / f"work-{run_id}"
    work.mkdir(exist_ok=True)
    return SandboxSpec(
        run_id=run_id,
        argv=argv or (PYTHON, "-c", code),
        env=env,
        work_dir=str(work),
        mounts=mounts,
        limits=Limits(**{"wall_ms": 20_000, **limits}),
    )


# -- getting out ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, object]]:
    """Things of the host that are worth reaching, each really there."""
    marker = f"marker-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.home(), prefix="canary-")))
        for canary in (folder / "canary", home / "canary"):
            canary.write_text("sing")
        code = f"import time; time.sleep(600) # {marker}"
        process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], env={"MARKER": marker}))
        stack.callback(process.kill)
        listener = stack.enter_context(
            socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        for name in (f"\0{marker}", str(folder / "unix.sock")):
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(name)
            unix.listen()
        yield {
            "canary_tmp": str(folder / "canary"),
            "canary_home": str(home / "canary"),
            "home": str(Path.home()),
            "home_names": [home.name],
            "project_file": str(PROJECT / "pyproject.toml"),
            "passwd": Path("/etc/passwd").read_text(),
            "marker": marker,
            "host_pid": process.pid,
            "addresses": ["127.0.0.1", "::1", *host_addresses()],
            "port": listener.getsockname()[1],
            "abstract": marker,
            "unix_path": str(folder / "unix.sock"),
            "env": [*ENV],
            "hostname": socket.gethostname(),
        }


def host_addresses() -> list[str]:
    """Every global address of this machine."""
    ipv4 = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", Path("/proc/net/fib_trie").read_text())
    lines = Path("/proc/net/if_inet6").read_text().splitlines() if Path("/proc/net/if_inet6").exists() else []
    ipv6 = [line.split()[0] for line in lines if line.split()[3] == "00"]
    return sorted({*ipv4, *(":".join(re.findall("....", address)) for address in ipv6)})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(
    driver_name: str, targets: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, list[Any]]]:
    """What the hostile program saw inside, run once for all claims."""
    folder = tmp_path_factory.mktemp("hostile")
    program = folder / "hostile.py"
    program.write_text(HOSTILE.read_text())
    program.chmod(0o644)
    mount = Mount(source=str(program), target="/agent/hostile.py")
    driver = drivers()[driver_name]
    argv = (PYTHON, "-I", "-S", "/agent/hostile.py", json.dumps(targets))
    sandbox = await driver.start(spec(folder, argv=argv, mounts=(mount,)))
    with sandbox.edge:
        end = await sandbox.wait()
    await driver.close()
    assert end.code == 0, end
    yield json.loads(end.output_tail)


CLAIMS = [
    "reads_a_file_in_tmp",
    "reads_a_file_in_home",
    "reads_the_project",
    "reads_a_file_through_its_init",
    "reads_the_shadow_file",
    "sees_the_accounts_of_the_host",
    "lists_the_home",
    "writes_outside_its_places",
    "sees_a_disk",
    "sees_a_process_of_the_host",
    "signals_a_process_of_the_host",
    "reads_the_environment_of_the_host",
    "sees_many_processes",
    "debugs_a_process",
    "connects_to_a_host_address",
    "connects_to_an_abstract_socket",
    "connects_to_a_unix_socket",
    "has_a_route_over_ipv4",
    "has_a_route_over_ipv6",
    "resolves_a_name",
    "sees_an_interface_beside_loopback",
    "opens_a_raw_socket",
    "opens_a_packet_socket",
    "opens_a_netlink_socket",
    "opens_a_vsock",
    "mounts",
    "makes_a_user_namespace",
    "makes_a_network_namespace",
    "clones_into_a_user_namespace",
    "becomes_root",
    "is_root",
    "has_capabilities",
    "may_gain_privileges",
    "has_no_system_call_filter",
    "reads_a_keyring",
    "loads_a_bpf_program",
    "uses_io_uring",
    "has_a_foreign_variable",
    "has_a_foreign_descriptor",
    "knows_the_hosts_name",
]
# What anybody may do outside, and changes nothing there: it must get through, or the check could not fail.
OPEN_OUTSIDE = {
    "reads_a_file_in_tmp",
    "reads_a_file_in_home",
    "reads_the_project",
    "sees_the_accounts_of_the_host",
    "lists_the_home",
    "sees_a_process_of_the_host",
    "signals_a_process_of_the_host",
    "reads_the_environment_of_the_host",
    "sees_many_processes",
    "debugs_a_process",
    "connects_to_a_host_address",
    "connects_to_an_abstract_socket",
    "connects_to_a_unix_socket",
    "opens_a_netlink_socket",
    "makes_a_user_namespace",
    "clones_into_a_user_namespace",
    "may_gain_privileges",
    "has_no_system_call_filter",
    "has_a_foreign_variable",
    "has_a_foreign_descriptor",
    "knows_the_hosts_name",
}


@pytest.mark.parametrize("claim", CLAIMS)
async def test_a_hostile_program_gets_nowhere(seen: dict[str, list[Any]], claim: str) -> None:
    """The check named by the parameter does not get through."""
    got_through, detail = seen[claim]
    assert not got_through, detail


def test_every_check_of_the_hostile_program_is_a_claim() -> None:
    """No check is left out of the list of claims."""
    names = re.findall(r"^@check\ndef (\w+)", HOSTILE.read_text(), re.MULTILINE)
    assert names == CLAIMS


def test_the_hostile_program_gets_through_outside(targets: dict[str, object]) -> None:
    """Without a sandbox the same program reaches what an ordinary user can: its checks are able to fail."""
    read, write = os.pipe()
    outside = subprocess.run(
        [sys.executable, "-I", "-S", str(HOSTILE), json.dumps(targets), *sorted(OPEN_OUTSIDE)],
        stdout=subprocess.PIPE,
        pass_fds=[read],
        check=True,
    )
    os.close(read)
    os.close(write)
    results = json.loads(outside.stdout)
    assert {name for name in OPEN_OUTSIDE if not results[name][0]} == set()


# -- what it may do ------------------------------------------------------------------------------------------


async def test_the_environment_is_the_given_one(run: Run) -> None:
    """The command sees exactly the variables of the spec, and PWD."""
    end = await run(argv=("env",))
    assert dict(line.split("=", 1) for line in end.output_tail.decode().splitlines()) == ENV | {
        "PWD": "/work"
    }


async def test_the_work_directory_is_the_hosts(run: Run, tmp_path: Path) -> None:
    """What the command writes to its working directory is there for the host afterwards."""
    end = await run("open('result.txt', 'w').write('done')")
    assert end.kind == "exited" and (tmp_path / "work-run-1" / "result.txt").read_text() == "done"


async def test_a_mount_is_read_only_unless_said(driver: Driver, tmp_path: Path) -> None:
    """A plain mount can be read, not written; a writable one can be written."""
    for name in ("plain", "open"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name / "file").chmod(0o644)
    mounts = (
        Mount(source=str(tmp_path / "plain"), target="/agent/plain"),
        Mount(source=str(tmp_path / "open"), target="/agent/open", writable=True),
    )
    code = """
import pathlib
for name in ("plain", "open"):
    path = pathlib.Path("/agent") / name / "file"
    said = path.read_text()
    try:
        path.write_text("changed")
    except OSError:
        said += " refused"
    print(said)
"""
    sandbox = await driver.start(spec(tmp_path, code, mounts=mounts))
    with sandbox.edge:
        end = await sandbox.wait()
    assert end.output_tail.split(b"\n")[:2] == [b"plain refused", b"open"]
    assert (tmp_path / "open" / "file").read_text() == "changed"


async def test_the_edge_is_served_from_outside(driver: Driver, tmp_path: Path) -> None:
    """An HTTP request to loopback inside is answered by who accepts on the edge outside."""
    code = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:4100/v1/models", data=b"ask", timeout=10).read().decode())
"""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(3)
        reply = head.split(b"\r\n")[0] + b" " + body
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(reply) + reply
        )
        writer.close()
        await writer.wait_closed()

    sandbox = await driver.start(spec(tmp_path, code))
    serve = asyncio.start_unix_server if sandbox.edge.family == socket.AF_UNIX else asyncio.start_server
    server = await serve(answer, sock=sandbox.edge)
    end = await sandbox.wait()
    server.close()
    await server.wait_closed()
    assert end.output_tail == b"POST /v1/models HTTP/1.1 ask\n", end


async def test_lines_are_followed_as_they_come(driver: Driver, tmp_path: Path) -> None:
    """A follower gets every line with its stream, in order, the unfinished last one included."""
    lines: list[tuple[Stream, str]] = []

    async def follow(stream: Stream, line: str) -> None:
        lines.append((stream, line))

    code = (
        "import sys; print('one'); print('two', flush=True); sys.stderr.write('oops'); print('end', end='')"
    )
    sandbox = await driver.start(spec(tmp_path, code), follow)
    with sandbox.edge:
        await sandbox.wait()
    assert [line for stream, line in lines if stream == "stdout"] == ["one", "two", "end"]
    assert [line for stream, line in lines if stream == "stderr"] == ["oops"]


# -- limits --------------------------------------------------------------------------------------------------


async def test_more_memory_than_the_limit_ends_the_sandbox(run: Run) -> None:
    """A memory bomb ends as `memory`, near the limit."""
    end = await run("x = [bytearray(1 << 20) for _ in range(3000)]", memory_bytes=100 << 20)
    assert (end.kind, end.code) == ("memory", None), end
    assert end.peak_memory_bytes < 400 << 20


async def test_memory_of_many_processes_counts_together(run: Run) -> None:
    """Processes that each stay below the limit end as `memory` when their sum is above it."""
    code = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        hold = bytearray(40 << 20)
        time.sleep(15)
time.sleep(15)
"""
    end = await run(code, memory_bytes=120 << 20)
    assert end.kind == "memory", end


async def test_a_fork_bomb_is_bounded(run: Run) -> None:
    """Fork fails inside before there are more processes than allowed, and the command goes on."""
    code = """
import os, time
made = 0
try:
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(15)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(made)
"""
    end = await run(code, processes=20)
    assert end.kind == "exited" and 10 <= int(end.output_tail) <= 23, end


async def test_a_file_ends_at_its_limit(run: Run) -> None:
    """A write past the file limit fails inside."""
    code = """
try:
    with open("big", "wb", 0) as big:
        for _ in range(100):
            big.write(bytes(1 << 20))
except OSError as error:
    print(error.errno)
"""
    end = await run(code, file_bytes=5 << 20)
    assert end.output_tail == b"27\n", end  # EFBIG


async def test_temporary_files_are_bounded(run: Run) -> None:
    """/tmp holds no more than its share of the memory."""
    code = """
try:
    for number in range(100):
        open(f"/tmp/{number}", "wb", 0).write(bytes(1 << 20))
except OSError as error:
    print(error.errno, number)
"""
    end = await run(code, memory_bytes=80 << 20)
    assert end.output_tail == b"28 20\n", end  # ENOSPC at a quarter


async def test_an_endless_run_times_out(run: Run) -> None:
    """A command that does not end is ended as `timeout`, soon after its wall time."""
    end = await run("while True: pass", wall_ms=400)
    assert end.kind == "timeout" and end.code is None and 400 <= end.wall_ms < 3_000, end


async def test_held_time_does_not_count(driver: Driver, tmp_path: Path) -> None:
    """While the clock is held a run may last longer than its wall time; released, it counts again."""
    sandbox = await driver.start(spec(tmp_path, "import time; time.sleep(60)", wall_ms=300))
    sandbox.hold_clock()
    with sandbox.edge:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.9):
                await sandbox.wait()
        sandbox.release_clock()
        end = await sandbox.wait()
    assert end.kind == "timeout" and end.wall_ms > 900


async def test_a_flood_of_output_is_dropped_and_flagged(run: Run) -> None:
    """Output past the limit neither fills memory nor stops the command; the last of it is kept."""
    code = """
import sys
for _ in range(40):
    sys.stdout.write("x" * 65535 + "\\n")
print("the end")
"""
    end = await run(code, output_bytes=100_000)
    assert end.kind == "exited" and end.code == 0 and end.output_truncated, end
    assert len(end.output_tail) <= 16 << 10 and end.output_tail.endswith(b"the end\n")


async def test_every_limit_says_what_holds_it(driver: Driver, tmp_path: Path) -> None:
    """`limits_held` has a mechanism for each limit of the spec."""
    sandbox = await driver.start(spec(tmp_path, "pass"))
    with sandbox.edge:
        await sandbox.wait()
    assert set(sandbox.limits_held) == set(Limits.__struct_fields__) and all(sandbox.limits_held.values())


# -- ends ----------------------------------------------------------------------------------------------------


async def test_the_exit_code_is_the_commands(run: Run) -> None:
    """A failing command is `exited` with its own code."""
    end = await run("import sys; sys.exit(7)")
    assert (end.kind, end.code) == ("exited", 7)


async def test_a_signal_is_128_and_its_number(run: Run) -> None:
    """A command that kills itself is `exited` with 128 and the signal's number."""
    end = await run("import os; os.kill(os.getpid(), 9)")
    assert (end.kind, end.code) == ("exited", 137)


async def test_a_command_that_is_not_there_is_refused(driver: Driver, tmp_path: Path) -> None:
    """A command that does not exist inside is a refusal with a code, not an exit."""
    for name in ("no-such-command", "/work/missing", "/agent/main.py"):
        with pytest.raises(CommandNotFound, match="QD-SBX-124"):
            await driver.start(spec(tmp_path, argv=(name,)))


async def test_a_wrong_spec_is_refused(driver: Driver, tmp_path: Path) -> None:
    """A source that is missing, and a target that is taken, are refused before anything starts."""
    for mount, code in (
        (Mount(source=str(tmp_path / "missing"), target="/agent"), "QD-SBX-122"),
        (Mount(source=str(tmp_path), target="/usr/share/agent"), "QD-SBX-123"),
        (Mount(source=str(tmp_path), target="/agent/../etc"), "QD-SBX-121"),
    ):
        with pytest.raises(SpecRefused, match=code):
            await driver.start(spec(tmp_path, "pass", mounts=(mount,)))


async def test_stop_lets_the_command_finish(driver: Driver, tmp_path: Path) -> None:
    """A command that answers SIGTERM ends by itself within the grace, as `stopped`."""
    code = """
import os, signal, sys, time
def leave(*_):
    os.write(1, b"leaving\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
os.write(1, b"ready\\n")
time.sleep(60)
"""
    ready = asyncio.Event()

    async def follow(stream: Stream, line: str) -> None:
        ready.set()

    sandbox = await driver.start(spec(tmp_path, code), follow)
    with sandbox.edge:
        await ready.wait()
        end = await sandbox.stop(grace_ms=10_000)
    assert end.kind == "stopped" and end.output_tail == b"ready\nleaving\n"
    assert await sandbox.stop() == end == await sandbox.wait()


async def test_stop_leaves_no_process(driver: Driver, tmp_path: Path) -> None:
    """A tree that ignores SIGTERM, forks twice and starts sessions of its own is gone when stop returns."""
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
print("ready", flush=True)
time.sleep(600)
"""
    ready = asyncio.Event()

    async def follow(stream: Stream, line: str) -> None:
        ready.set()

    sandbox = await driver.start(spec(tmp_path, code), follow)
    with sandbox.edge:
        await ready.wait()
        tree = memory.tree(sandbox.pid)
        assert len(tree) >= 5
        assert all(real_uid(pid) != 0 for pid in tree), "a process of the sandbox is root on the host"
        end = await sandbox.stop(grace_ms=50)
    assert end.kind == "stopped" and [pid for pid in tree if Path(f"/proc/{pid}").exists()] == []


def real_uid(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("Uid:")).split()[1])


async def test_what_the_command_leaves_behind_ends_with_it(driver: Driver, tmp_path: Path) -> None:
    """A background process does not outlive the command."""
    code = "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(600)\nprint('done')"
    sandbox = await driver.start(spec(tmp_path, code))
    tree = memory.tree(sandbox.pid)
    with sandbox.edge:
        end = await sandbox.wait()
    assert end.kind == "exited" and end.wall_ms < 15_000
    assert [pid for pid in tree if Path(f"/proc/{pid}").exists()] == []


async def test_two_sandboxes_cannot_see_each_other(driver: Driver, tmp_path: Path) -> None:
    """Neither loopback, abstract sockets, temporary files nor processes are shared between sandboxes."""
    host = """
import socket, time
open("/tmp/shared", "w").write("x")
listeners = [socket.create_server(("127.0.0.1", 5000)), socket.socket(socket.AF_UNIX)]
listeners[1].bind("\\0neighbour")
listeners[1].listen()
print("ready", flush=True)
time.sleep(600)
"""
    guest = """
import os, socket
seen = []
for family, address in ((socket.AF_INET, ("127.0.0.1", 5000)), (socket.AF_UNIX, "\\0neighbour")):
    try:
        socket.socket(family).connect(address)
        seen.append(address)
    except OSError:
        pass
seen += [name for name in os.listdir("/tmp") if name == "shared"]
for pid in os.listdir("/proc"):
    if pid.isdigit() and int(pid) not in (1, os.getpid()):
        seen += [pid for word in ["neighbour"] if word in open(f"/proc/{pid}/cmdline").read()]
print(seen)
"""
    ready = asyncio.Event()

    async def follow(stream: Stream, line: str) -> None:
        ready.set()

    first = await driver.start(spec(tmp_path, host, run_id="first"), follow)
    with first.edge:
        await ready.wait()
        second = await driver.start(spec(tmp_path, guest, run_id="second"))
        with second.edge:
            end = await second.wait()
        await first.stop(grace_ms=0)
    assert end.output_tail == b"[]\n", end


async def test_the_probe_finds_nothing_missing(driver: Driver) -> None:
    """On a machine that passed the other tests, every finding is ok."""
    findings = await driver.probe()
    assert findings and all(finding.ok for finding in findings), findings


# -- bubblewrap alone ----------------------------------------------------------------------------------------


async def test_a_sandbox_killed_from_outside_is_lost(tmp_path: Path) -> None:
    """When the sandbox dies under the command, the end is `lost`, with no code."""
    driver = drivers()["bubblewrap"]
    sandbox = await driver.start(spec(tmp_path, "import time; time.sleep(60)"))
    with sandbox.edge:
        os.kill(sandbox.pid, signal.SIGKILL)
        end = await sandbox.wait()
    await driver.close()
    assert (end.kind, end.code) == ("lost", None) and end.detail


SERVICE = """
import asyncio, sys
from services.sandbox.adapters.choose import drivers
from services.sandbox.ports import PYTHON, SandboxSpec
async def main():
    driver = drivers(sys.argv[2])["bubblewrap"]
    code = "import time; time.sleep(600) # " + sys.argv[2]
    for number in range(3):
        spec = SandboxSpec(run_id=f"run-{number}", argv=(PYTHON, "-c", code), env={}, work_dir=sys.argv[1])
        await driver.start(spec)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_sandboxes_die_with_their_service(tmp_path: Path) -> None:
    """After kill -9 of the process that started them, no process of any sandbox or launcher is left."""
    work = tmp_path / "work"
    work.mkdir()
    owner = f"orphan{os.getpid()}"
    argv = [sys.executable, "-c", SERVICE, str(work), owner]
    with subprocess.Popen(argv, cwd=PROJECT) as service:
        try:
            # the service, its launcher, and of each sandbox its monitor, init and command
            tree = await eventually(lambda: tree_of(service, at_least=1 + 1 + 3 * 3))
        finally:
            service.kill()

    async def gone() -> bool:
        return not any(alive(pid) for pid in tree)

    assert await eventually(gone)
    successor = drivers(owner)["bubblewrap"]
    assert await successor.sweep(()) in ([], ["run-0", "run-1", "run-2"])  # empty cgroups, where it had any
    assert await successor.sweep(()) == []


async def tree_of(service: subprocess.Popen[bytes], at_least: int) -> list[int]:
    tree = memory.tree(service.pid)
    return tree if len(tree) >= at_least else []


def alive(pid: int) -> bool:
    """Neither gone nor a zombie that its new parent has yet to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_service_killed_at_any_moment_of_a_start_leaves_nothing(tmp_path: Path) -> None:
    """Killed while it starts sandboxes, at ten different moments, the service leaves no process."""
    work = tmp_path / "work"
    work.mkdir()
    for moment in range(10):
        marker = f"early{os.getpid()}x{moment}"
        with subprocess.Popen([sys.executable, "-c", SERVICE, str(work), marker], cwd=PROJECT) as service:
            try:
                await eventually(lambda service=service: tree_of(service, at_least=2), every_s=0.001)
                await asyncio.sleep(moment * 0.003)  # not a wait for anything: the moment is what is tried
            finally:
                service.kill()

        async def gone(marker: str = marker) -> bool:
            return not [line for line in command_lines() if marker in line]

        assert await eventually(gone), moment
        await drivers(marker)["bubblewrap"].sweep(())


def command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((entry / "cmdline").read_text(errors="replace"))
    return found


PROBE = """
import asyncio, json, sys, msgspec
from services.sandbox.adapters.choose import choose, drivers
from services.sandbox.ports import SandboxUnavailable
async def main():
    findings = await drivers()["bubblewrap"].probe()
    try:
        await choose(docker_socket="/nonexistent.sock")
        error = ""
    except SandboxUnavailable as problem:
        error = str(problem)
    print(json.dumps([msgspec.to_builtins(findings), error]))
asyncio.run(main())
"""


def test_a_machine_without_user_namespaces_says_so() -> None:
    """Where user namespaces are forbidden, the probe says so and what to do, and no driver is chosen."""
    from services.sandbox.adapters.bubblewrap import bwrap_path

    outer = [str(bwrap_path()), "--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns"]
    result = subprocess.run(
        [*outer, "--dev-bind", "/", "/", "--", sys.executable, "-c", PROBE],
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        check=True,
    )
    findings, error = json.loads(result.stdout)
    assert [finding["code"] for finding in findings if not finding["ok"]] == ["QD-SBX-102"]
    assert all(finding["fix"] for finding in findings if not finding["ok"])
    assert error.startswith("QD-SBX-101") and "bubblewrap" in error and "docker" in error
