"""The system call filter, run by an interpreter of the few instructions it uses."""

import errno
import json
import struct
from typing import Any

import pytest

from services.sandbox.adapters import seccomp
from services.sandbox.ports import SandboxUnavailable

ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = ["x86_64", "aarch64"]
CLONE = {"x86_64": 56, "aarch64": 220}
SOCKET = {"x86_64": 41, "aarch64": 198}
READ = {"x86_64": 0, "aarch64": 63}
PTRACE = {"x86_64": 101, "aarch64": 117}
MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}


def verdict(program: bytes, number: int, argument: int = 0, arch: int = ARCH["x86_64"]) -> int:
    """What the kernel would do: seccomp_data is number, arch, instruction pointer, six arguments."""
    packet = struct.pack("<IIQ6Q", number, arch, 0, argument, 0, 0, 0, 0, 0)
    code = list(struct.iter_unpack("=HBBI", program))
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", packet, value)
        elif operation == 0x06:
            return int(value)
        else:
            jumps = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += if_true if jumps[operation] else if_false


def refused(number: int) -> int:
    return 0x00050000 | number


@pytest.mark.parametrize("machine", MACHINES)
def test_ordinary_calls_pass(machine: str) -> None:
    """A call that is not listed is allowed, memfd_create too where a cgroup counts its memory."""
    program = seccomp.bpf(machine, memory_is_counted=True)
    for number in (READ[machine], MEMFD_CREATE[machine]):
        assert verdict(program, number, arch=ARCH[machine]) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_refused(machine: str) -> None:
    """Each number of the table gives EPERM."""
    program = seccomp.bpf(machine, memory_is_counted=False)
    column = MACHINES.index(machine)
    numbers = [row[column] for row in seccomp._table(False).values() if row[column] is not None]
    assert PTRACE[machine] in numbers and MEMFD_CREATE[machine] in numbers
    for number in numbers:
        assert number is not None
        assert verdict(program, number, arch=ARCH[machine]) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_clone_makes_processes_but_no_namespaces(machine: str) -> None:
    """clone passes with the flags of fork and threads, with none for a namespace; clone3 is not there."""
    program = seccomp.bpf(machine, memory_is_counted=True)
    for flags in (17, 0x3D0F00):
        assert verdict(program, CLONE[machine], flags, ARCH[machine]) == ALLOW
    for namespace in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(program, CLONE[machine], namespace | 17, ARCH[machine]) == refused(errno.EPERM)
    assert verdict(program, 435, arch=ARCH[machine]) == refused(errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_sockets_are_unix_and_internet_only(machine: str) -> None:
    """AF_UNIX, AF_INET and AF_INET6 pass; every other family is not supported."""
    program = seccomp.bpf(machine, memory_is_counted=True)
    passed = {
        family for family in range(64) if verdict(program, SOCKET[machine], family, ARCH[machine]) == ALLOW
    }
    assert passed == {1, 2, 10}
    assert verdict(program, SOCKET[machine], 40, ARCH[machine]) == refused(errno.EAFNOSUPPORT)


def test_other_architectures_and_x32_are_shut() -> None:
    """A 32-bit call ends the process; an x32 call does not exist."""
    program = seccomp.bpf("x86_64", memory_is_counted=True)
    assert verdict(program, 0, arch=0x40000003) == KILL
    assert verdict(program, 0x40000000) == refused(errno.ENOSYS)


def test_an_unknown_machine_gets_no_sandbox() -> None:
    """Without known numbers there is no filter, and without a filter no sandbox."""
    with pytest.raises(SandboxUnavailable, match="QD-SBX-107"):
        seccomp.bpf("riscv64", memory_is_counted=True)


@pytest.mark.parametrize("machine", MACHINES)
def test_docker_gets_the_same_filter(machine: str) -> None:
    """The JSON profile refuses the same calls, namespaces and families as the program."""
    profile: dict[str, Any] = json.loads(seccomp.docker_profile(machine))
    rules = profile["syscalls"]
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    assert set(rules[0]["names"]) == set(seccomp._table(True))
    clones = {rule["args"][0]["value"] for rule in rules if rule["names"] == ["clone"]}
    assert clones == set(seccomp._NEW_NAMESPACES)
    families = [rule["args"][0] for rule in rules if rule["names"] == ["socket"]]
    shut = {entry["value"] for entry in families if entry["op"] == "SCMP_CMP_EQ"}
    assert shut == {0, 3, 4, 5, 6, 7, 8, 9}
    assert [entry["value"] for entry in families if entry["op"] == "SCMP_CMP_GT"] == [10]
