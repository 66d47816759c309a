"""Starts sandboxes for the bubblewrap driver: a program of its own, run as `python -I -S launcher.py FD`.

It uses the standard library alone and stays single-threaded, so that it can make each sandbox with one raw
clone(2). FD is a SOCK_SEQPACKET socket. Every message is a JSON `Order` with file descriptors attached:

    fds[0]    the reply socket of this order
    fds[1:4]  stdin, stdout, stderr of the agent
    fds[4:]   what bwrap's arguments refer to; they become FIRST_FD, FIRST_FD + 1, ... there

Replies on the order's socket: `{"pid": n}` with a pidfd, from the parent; `{"edge": true}` with the listening
socket, from the child; `{"step": ..., "errno": n, "text": ...}` from either when a step failed. The service
answers one byte when it has both descriptors; a child that gets none ends, so that no sandbox runs that
nobody holds. The child's end closes by itself when bwrap takes its place: end-of-file means that bwrap runs.

Why a process that stays: an interpreter takes longer to start than a sandbox, and a sandbox whose parent is
this process dies with it, while this process dies with the service (PR_SET_PDEATHSIG, each set and then
checked). Each sandbox is the first process of a pid namespace, so when bwrap's monitor dies at any moment,
even before bwrap has tied its own children to itself, the kernel ends everything below it.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from typing import NoReturn

FIRST_FD = 10
STAGE = "/tmp/stage"  # noqa: S108 - under a tmpfs of our own private mount namespace, never the host's /tmp
MAX_ORDER_BYTES = 128 << 10
MAX_FDS = 64

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
CLONE_PIDFD = 0x1000
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1000, 0x4000, 0x40000, 0x2, 0x4, 0x8
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
KEYCTL_JOIN_SESSION_KEYRING = 1
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1

# PyDLL keeps the interpreter's lock over the call: after a raw clone there is nobody to hand it back.
libc = ctypes.PyDLL(None, use_errno=True)


class StepFailed(Exception):
    """A system call said no. `step` is a word of the protocol, stable."""

    def __init__(self, step: str, number: int, text: str = "") -> None:
        super().__init__(step)
        self.reply = {"step": step, "errno": number, "text": text or os.strerror(number)}


def call(step: str, function: str, *arguments: object) -> int:
    """A libc call; StepFailed when it returns -1."""
    result: int = getattr(libc, function)(*arguments)
    if result == -1:
        raise StepFailed(step, ctypes.get_errno())
    return result


def attempt(step: str, action, *arguments: object):  # type: ignore[no-untyped-def]
    """A Python call; StepFailed when it raises OSError or ValueError (an out-of-range limit)."""
    try:
        return action(*arguments)
    except (OSError, ValueError) as error:
        raise StepFailed(step, getattr(error, "errno", None) or errno.EINVAL, str(error)) from None


def die_with_parent() -> None:
    """Every change of credentials clears this, so it is set again after each."""
    call("tie", "prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def clone(flags: int) -> tuple[int, int]:
    """fork() into new namespaces: (0, -1) in the child, (pid, pidfd) in the parent."""
    pidfd = ctypes.c_int(-1)
    number = ctypes.c_long(SYS_CLONE[os.uname().machine])
    flags |= CLONE_PIDFD | signal.SIGCHLD
    pid = call("namespaces", "syscall", number, ctypes.c_long(flags), None, ctypes.byref(pidfd), None, None)
    return pid, pidfd.value


def write(step: str, path: str, text: str) -> None:
    def action() -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    attempt(step, action)


# -- inside the clone ----------------------------------------------------------------------------------------


def forget_keyring() -> None:
    """The service's session keyring may hold a person's tickets; the sandbox gets an empty one."""
    number = ctypes.c_long(SYS_KEYCTL[os.uname().machine])
    libc.syscall(
        number, ctypes.c_long(KEYCTL_JOIN_SESSION_KEYRING), None
    )  # fails where there are no keyrings


def stage(binds: list[list[str]]) -> None:
    """Bind each source below STAGE, where an unprivileged uid can reach it whatever lies above the source."""
    call("stage", "mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    held = [(attempt("stage", os.open, source, os.O_PATH | os.O_CLOEXEC), name) for source, name in binds]
    root = os.path.dirname(STAGE)
    options = ctypes.c_ulong(MS_NOSUID | MS_NODEV)
    call("stage", "mount", b"tmpfs", root.encode(), b"tmpfs", options, b"mode=0755,size=1m")
    os.umask(0o022)
    for fd, name in held:
        target = f"{STAGE}/{name}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        source = f"/proc/self/fd/{fd}".encode()
        call("stage", "mount", source, target.encode(), None, ctypes.c_ulong(MS_BIND | MS_REC), None)
        os.close(fd)


def own_proc() -> None:
    """A /proc of the new pid namespace over the one that came along, seen by nobody else.

    bwrap looks its child up in /proc by the pid that fork gave it. In the old one that is another process: on
    a host the kernel's second thread, which always is, in a container mostly none, and bwrap gives up.
    """
    call("proc", "mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    options = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    call("proc", "mount", b"proc", b"/proc", b"proc", options, None)


def become(uid: int, gid: int) -> None:
    """From root to an unprivileged uid for good. The process stays dumpable: it writes its own uid_map."""
    attempt("uid", os.setgroups, [])
    attempt("uid", os.setresgid, gid, gid, gid)
    attempt("uid", os.setresuid, uid, uid, uid)
    call("uid", "prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)


def map_ids(uid: int, gid: int) -> None:
    write("map", "/proc/self/setgroups", "deny")
    write("map", "/proc/self/uid_map", f"{uid} {uid} 1")
    write("map", "/proc/self/gid_map", f"{gid} {gid} 1")


def listen(port: int) -> socket.socket:
    """Bring `lo` up in the empty network namespace and listen on it: the only way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        _, flags = struct.unpack("16sH22x", attempt("loopback", fcntl.ioctl, control, SIOCGIFFLAGS, request))
        request = struct.pack("16sH22x", b"lo", flags | IFF_UP)
        attempt("loopback", fcntl.ioctl, control, SIOCSIFFLAGS, request)
    edge = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    attempt("loopback", edge.bind, ("127.0.0.1", port))
    edge.listen(128)
    return edge


def place_fds(fds: list[int]) -> None:
    """stdio to 0..2, the rest to FIRST_FD...; everything else has close-on-exec and goes."""
    clear = FIRST_FD + MAX_FDS
    held = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, clear) for fd in fds]
    for index, fd in enumerate(held):
        os.dup2(fd, index if index < 3 else FIRST_FD + index - 3, inheritable=True)


def limit(order: dict) -> None:  # type: ignore[type-arg]
    for name, value in order["rlimits"].items():
        attempt("rlimit", resource.setrlimit, getattr(resource, name), (value, value))


def enter(order: dict, reply: socket.socket, fds: list[int], life: int) -> None:  # type: ignore[type-arg]
    """From the clone to bwrap. Returns never: it execs or raises StepFailed."""
    uid, gid = order["uid"], order["gid"]
    forget_keyring()
    write("score", "/proc/self/oom_score_adj", "800")  # short of memory, the kernel takes a sandbox first
    for path in order["cgroups"]:
        write("cgroup", path, "0")
    if order["privileged"]:
        stage(order["stage"])
        own_proc()
        become(uid, gid)
        call("namespaces", "unshare", CLONE_NEWUSER | CLONE_NEWNET)
    map_ids(uid, gid)
    if not order["privileged"]:
        own_proc()  # the new user namespace owns the pid namespace, so its first user may
    with listen(order["edge_port"]) as edge:
        send(reply, {"edge": True}, [edge.fileno()])
    if not reply.recv(1):
        os._exit(1)  # the service gave up on this order
    limit(order)
    die_with_parent()
    poll = select.poll()
    poll.register(life, select.POLLHUP)
    if poll.poll(0):
        os._exit(1)  # the launcher died before we were tied to it
    restore_signals()
    os.chdir("/")
    place_fds(fds)
    attempt("exec", os.execve, order["bwrap"], order["argv"], {})


def restore_signals() -> None:
    """The interpreter ignores these, we ignore SIGCHLD, and ignored signals survive exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


# -- the loop ------------------------------------------------------------------------------------------------


def send(reply: socket.socket, message: dict, fds: list[int]) -> None:  # type: ignore[type-arg]
    """Nobody reads it when the service gave up on the order, which the child finds out by itself."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        reply.sendmsg([json.dumps(message).encode()], rights)


def receive(control: socket.socket) -> tuple[dict, list[int]]:  # type: ignore[type-arg]
    """The next order. Exits when the service has closed its end."""
    fds = array.array("i")
    room = socket.CMSG_SPACE(MAX_FDS * fds.itemsize)
    message, rights, _, _ = control.recvmsg(MAX_ORDER_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for _, _, content in rights:
        fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not message:
        sys.exit(0)
    return json.loads(message), list(fds)


def fill(order: dict, reply: socket.socket, fds: list[int], life: int) -> NoReturn:  # type: ignore[type-arg]
    """The child's whole life: it becomes bwrap or says why not."""
    try:
        enter(order, reply, fds, life)
    except StepFailed as failure:
        send(reply, failure.reply, [])
    except BaseException as error:  # noqa: BLE001 - it must not run on as a second launcher
        send(reply, StepFailed("unexpected", 0, repr(error)).reply, [])
    os._exit(1)


def serve(control: socket.socket) -> None:
    life, held = os.pipe()
    while True:
        order, (reply_fd, *fds) = receive(control)
        namespaces = CLONE_NEWNS if order["privileged"] else CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS
        with socket.socket(fileno=reply_fd) as reply:
            try:
                pid, pidfd = clone(namespaces | CLONE_NEWPID)
            except StepFailed as failure:
                send(reply, failure.reply, [])
            else:
                if pid == 0:
                    os.close(held)
                    control.close()
                    fill(order, reply, fds, life)
                send(reply, {"pid": pid}, [pidfd])
                os.close(pidfd)
        for fd in fds:
            os.close(fd)


def main() -> None:
    die_with_parent()
    if os.getppid() != int(sys.argv[2]):
        sys.exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies: the service watches pidfds
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
