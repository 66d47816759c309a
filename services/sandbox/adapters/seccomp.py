"""The system calls that are refused inside a sandbox, in the formats of both drivers.

A deny list on top of what namespaces and missing capabilities already refuse. It closes what those leave
open: address families that no network namespace confines (AF_VSOCK reaches the hypervisor of a virtual
machine), debugging another process, kernel keyrings, and the kernel's largest attack surfaces. Numbers are
those of the kernel's syscall_64.tbl and asm-generic/unistd.h.
"""

import errno
import json
import struct
from functools import cache
from typing import Any

from services.sandbox.ports import SandboxUnavailable

# name: (x86_64, aarch64); None where the architecture never had it
_REFUSED: dict[str, tuple[int, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# Memory that no process has mapped is in no resident set, so it is refused where resident sets are all we
# see.
_UNSEEN_MEMORY: dict[str, tuple[int, int | None]] = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "msgget": (68, 186),
    "shmget": (29, 194),
}
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_NEW_NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENT_0 = 0, 4, 16  # offsets in struct seccomp_data, whose words are little-endian here


def supports(machine: str) -> bool:
    return machine in _AUDIT_ARCH


@cache
def bpf(machine: str, *, memory_is_counted: bool) -> bytes:
    """The filter as an array of `struct sock_filter`, for `bwrap --seccomp`.

    `machine` as os.uname() says it. `memory_is_counted`: a cgroup counts every page, mapped or not. Raises
    SandboxUnavailable (QD-SBX-107) for a machine whose numbers are not known: never a sandbox without a
    filter.
    """
    if not supports(machine):
        raise SandboxUnavailable(
            f"no system call filter is known for {machine}", code="QD-SBX-107", hint="use x86_64 or aarch64"
        )
    column = 0 if machine == "x86_64" else 1
    code = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        code += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for number in sorted(row[column] or 0 for row in _table(memory_is_counted).values() if row[column]):
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    # clone3 hides its flags behind a pointer; without it the C library falls back to clone.
    code += [(_JUMP_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    code += [
        (_JUMP_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _ARGUMENT_0),
        (_JUMP_ANY_BIT, 0, 1, sum(_NEW_NAMESPACES)),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_JUMP_EQUAL, 0, 1 + len(_FAMILIES) + 1, _SOCKET[column]),
        (_LOAD, 0, 0, _ARGUMENT_0),
    ]
    code += [(_JUMP_EQUAL, len(_FAMILIES) - index, 0, family) for index, family in enumerate(_FAMILIES)]
    code += [(_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def docker_profile(machine: str) -> str:
    """The same filter as the JSON of Docker's `seccomp=` security option. Raises as `bpf` does."""
    bpf(machine, memory_is_counted=True)
    refusals: list[dict[str, Any]] = [
        {"names": sorted(_table(True)), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
    ]
    refusals += [
        _when("clone", errno.EPERM, index=0, value=bit, valueTwo=bit, op="SCMP_CMP_MASKED_EQ")
        for bit in _NEW_NAMESPACES
    ]
    last = max(_FAMILIES)
    refusals += [
        _when("socket", errno.EAFNOSUPPORT, index=0, value=family, op="SCMP_CMP_EQ")
        for family in range(last)
        if family not in _FAMILIES
    ]
    refusals.append(_when("socket", errno.EAFNOSUPPORT, index=0, value=last, op="SCMP_CMP_GT"))
    architecture = f"SCMP_ARCH_{machine.upper()}"
    return json.dumps(
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture], "syscalls": refusals}
    )


def _table(memory_is_counted: bool) -> dict[str, tuple[int, int | None]]:
    return _REFUSED if memory_is_counted else _REFUSED | _UNSEEN_MEMORY


def _when(name: str, number: int, **condition: object) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": [condition]}
