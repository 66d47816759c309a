"""A program that tries to get out: each check tells whether it got through.

Run as `python hostile.py TARGETS [CHECK...]`: a JSON object of what there is to reach on the host, and the
checks to run if not all. Prints one JSON object, check name to `[got_through, what it saw]`. It runs inside
a sandbox, and outside one to prove that it would notice an opening: there only with checks that change
nothing, for a test may run as root. Standard library only.
"""

import ctypes
import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

TARGETS = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
CHECKS: dict[str, Callable[[], object]] = {}
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET = 0x10000000, 0x20000, 0x40000000
NUMBERS = {"x86_64": (56, 250, 321, 425), "aarch64": (220, 219, 280, 425)}
CLONE, KEYCTL, BPF, IO_URING_SETUP = NUMBERS[os.uname().machine]


def check(action: Callable[[], object]) -> Callable[[], object]:
    """Register: it got through when it returns something true and raises nothing."""
    CHECKS[action.__name__] = action
    return action


def succeeds(result: int) -> str:
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"returned {result}"


def in_child(action: Callable[[], object]) -> bool:
    """Whether `action` works in a process of its own, which what it changes dies with."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if action() else 1)
        except BaseException:  # noqa: BLE001 - a fork must not go on as a second program
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


# -- files ---------------------------------------------------------------------------------------------------


@check
def reads_a_file_in_tmp() -> object:
    return Path(TARGETS["canary_tmp"]).read_text()


@check
def reads_a_file_in_home() -> object:
    return Path(TARGETS["canary_home"]).read_text()


@check
def reads_the_project() -> object:
    return Path(TARGETS["project_file"]).read_text()[:40]


@check
def reads_a_file_through_its_init() -> object:
    return Path("/proc/1/root" + TARGETS["canary_tmp"]).read_text()


@check
def reads_the_shadow_file() -> object:
    return Path("/etc/shadow").read_text()[:10] or "empty"


@check
def sees_the_accounts_of_the_host() -> object:
    return Path("/etc/passwd").read_text() == TARGETS["passwd"]


@check
def lists_the_home() -> object:
    return sorted(set(os.listdir(TARGETS["home"])) & set(TARGETS["home_names"]))


@check
def writes_outside_its_places() -> object:
    written = []
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/proc", "/sys", sys.prefix, sys.base_prefix):
        try:
            path = Path(folder) / "written-by-hostile"
            path.write_text("x")
            path.unlink()
            written.append(folder)
        except OSError:
            continue
    return written


@check
def sees_a_disk() -> object:
    return [name for name in os.listdir("/dev") if name.startswith(("sd", "vd", "nvme", "kmsg", "mem"))]


# -- processes -----------------------------------------------------------------------------------------------


def command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_text())
            except OSError:
                continue
    return found


@check
def sees_a_process_of_the_host() -> object:
    return [line for line in command_lines() if TARGETS["marker"] in line.replace(sys.argv[1], "")]


@check
def signals_a_process_of_the_host() -> object:
    os.kill(TARGETS["host_pid"], 0)
    return "signalled"


@check
def reads_the_environment_of_the_host() -> object:
    return TARGETS["marker"] in Path(f"/proc/{TARGETS['host_pid']}/environ").read_text()


@check
def sees_many_processes() -> object:
    return len(command_lines()) > 3


@check
def debugs_a_process() -> object:
    def trace() -> object:
        return succeeds(LIBC.ptrace(0, 0, None, None))  # PTRACE_TRACEME

    return in_child(trace)


# -- network -------------------------------------------------------------------------------------------------


def connects(family: int, kind: int, address: object) -> str:
    with socket.socket(family, kind) as conn:
        conn.settimeout(2)
        conn.connect(address)  # type: ignore[arg-type]
        return f"connected to {address}"


@check
def connects_to_a_host_address() -> object:
    reached = []
    for address in TARGETS["addresses"]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            reached.append(connects(family, socket.SOCK_STREAM, (address, TARGETS["port"])))
        except OSError:
            continue
    return reached


@check
def connects_to_an_abstract_socket() -> object:
    return connects(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + TARGETS["abstract"])


@check
def connects_to_a_unix_socket() -> object:
    return connects(socket.AF_UNIX, socket.SOCK_STREAM, TARGETS["unix_path"])


@check
def has_a_route_over_ipv4() -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as conn:
        return conn.sendto(
            b"\0" * 12, ("192.0.2.53", 53)
        )  # TEST-NET-1: routed like any other, owned by nobody


@check
def has_a_route_over_ipv6() -> object:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as conn:
        return conn.sendto(b"\0" * 12, ("2001:db8::53", 53))


@check
def resolves_a_name() -> object:
    return socket.gethostbyname("example.com")


@check
def sees_an_interface_beside_loopback() -> object:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return [name for line in lines if (name := line.split(":")[0].strip()) != "lo"]


@check
def opens_a_raw_socket() -> object:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close() or "opened"


@check
def opens_a_packet_socket() -> object:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close() or "opened"


@check
def opens_a_netlink_socket() -> object:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close() or "opened"


@check
def opens_a_vsock() -> object:
    return socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close() or "opened"


# -- privileges ----------------------------------------------------------------------------------------------


@check
def mounts() -> object:
    target = tempfile.mkdtemp()  # covers nothing, should it work
    return in_child(lambda: succeeds(LIBC.mount(b"tmpfs", target.encode(), b"tmpfs", 0, None)))


@check
def makes_a_user_namespace() -> object:
    return in_child(lambda: succeeds(LIBC.unshare(CLONE_NEWUSER)))


@check
def makes_a_network_namespace() -> object:
    return in_child(lambda: succeeds(LIBC.unshare(CLONE_NEWNET)))


@check
def clones_into_a_user_namespace() -> object:
    def clone() -> object:
        flags = CLONE_NEWUSER | CLONE_NEWNS | 17
        pid = LIBC.syscall(ctypes.c_long(CLONE), ctypes.c_long(flags), None, None, None, None)
        if pid == 0:
            os._exit(0)
        return succeeds(pid)

    return in_child(clone)


@check
def becomes_root() -> object:
    return in_child(lambda: os.setuid(0) or True)


@check
def is_root() -> object:
    return os.getuid() == 0 or os.geteuid() == 0


@check
def has_capabilities() -> object:
    status = Path("/proc/self/status").read_text().splitlines()
    return [line for line in status if line.startswith("Cap") and int(line.split()[1], 16)]


@check
def may_gain_privileges() -> object:
    return "NoNewPrivs:\t1" not in Path("/proc/self/status").read_text()


@check
def has_no_system_call_filter() -> object:
    return "Seccomp:\t2" not in Path("/proc/self/status").read_text()


@check
def reads_a_keyring() -> object:
    return succeeds(
        LIBC.syscall(ctypes.c_long(KEYCTL), ctypes.c_long(0), ctypes.c_long(-3), ctypes.c_long(1))
    )


@check
def loads_a_bpf_program() -> object:
    attributes = ctypes.create_string_buffer(struct.pack("IIIII", 1, 4, 4, 1, 0) + bytes(100))
    return succeeds(LIBC.syscall(ctypes.c_long(BPF), ctypes.c_long(0), attributes, ctypes.c_long(120)))


@check
def uses_io_uring() -> object:
    parameters = ctypes.create_string_buffer(120)
    return succeeds(LIBC.syscall(ctypes.c_long(IO_URING_SETUP), ctypes.c_long(1), parameters))


# -- what it was given ---------------------------------------------------------------------------------------


@check
def has_a_foreign_variable() -> object:
    own = {"PWD", "LC_CTYPE"}  # bwrap's, and the interpreter's own for the C locale
    return sorted(set(os.environ) - own - set(TARGETS["env"]))


@check
def has_a_foreign_descriptor() -> object:
    open_now = []
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}"):
            open_now.append(name)
    return open_now


@check
def knows_the_hosts_name() -> object:
    return socket.gethostname() == TARGETS["hostname"]


def main() -> None:
    seen: dict[str, list[object]] = {}
    for name in sys.argv[2:] or CHECKS:
        try:
            result = CHECKS[name]()
            seen[name] = [bool(result), str(result)[:300]]
        except Exception as error:  # noqa: BLE001 - whatever stopped it, it did not get through
            seen[name] = [False, f"{type(error).__name__}: {error}"[:300]]
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main()
