"""Which driver this machine gets."""

from services.sandbox.adapters.bubblewrap import Bubblewrap
from services.sandbox.adapters.docker import SOCKET, Docker
from services.sandbox.ports import Driver, Finding, SandboxUnavailable

PREFERENCES = ("auto", "bubblewrap", "docker")


def drivers(owner: str | None = None, docker_socket: str = SOCKET) -> dict[str, Driver]:
    """Every driver by name, best first. Nothing is opened before one is used."""
    found: tuple[Driver, ...] = (Bubblewrap(owner), Docker(owner, docker_socket))
    return {driver.name: driver for driver in found}


async def choose(
    preference: str = "auto", *, owner: str | None = None, docker_socket: str = SOCKET
) -> Driver:
    """The first driver whose probe finds nothing missing: bubblewrap, then docker; or the one preferred.

    `owner` names this installation (see the drivers). Raises SandboxUnavailable (QD-SBX-101) with all that is
    missing and how to get it, and for an unknown preference.
    """
    candidates = drivers(owner, docker_socket)
    if preference not in PREFERENCES:
        raise SandboxUnavailable(
            f"there is no sandbox driver {preference!r}",
            code="QD-SBX-101",
            hint=f"one of {', '.join(PREFERENCES)}",
        )
    if preference != "auto":
        candidates = {preference: candidates[preference]}
    missing: list[tuple[str, Finding]] = []
    for driver in candidates.values():
        findings = await driver.probe()
        if all(finding.ok for finding in findings):
            return driver
        missing += [(driver.name, finding) for finding in findings if not finding.ok]
        await driver.close()
    raise SandboxUnavailable(
        "no sandbox can be made on this machine: "
        + "; ".join(f"{name}: {finding.what} ({finding.code})" for name, finding in missing),
        code="QD-SBX-101",
        hint=" | ".join(f"{name}: {finding.fix}" for name, finding in missing),
    )
