"""Ids by their beginnings: what a person types is looked up among what there is."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from quarterdeck.bus.connection import api
from quarterdeck.cli.reading import rows
from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.kernel.ids import is_token

if TYPE_CHECKING:
    from quarterdeck.client import Client

PAGES = 100
"""Of subject names, 100,000 each: more missions than one workspace's stream is meant to hold."""


async def mission(client: "Client", beginning: str) -> str:
    """The id of the workspace's mission that begins so. Raises SetupProblem (QD-CLI-003) for none or several.

    Reads the subjects of the event log, so it needs no service.
    """
    _check(beginning, "mission")
    if await _missions(client, f"evt.mission.{client.workspace}.{beginning}.>"):
        return beginning
    every = await _missions(client, f"evt.mission.{client.workspace}.*.*")
    return one(beginning, every, "mission", client.workspace)


async def approval(client: "Client", beginning: str) -> str:
    """The id of the workspace's approval that begins so; those that wait come first.

    Raises SetupProblem (QD-CLI-003) for none or several.
    """
    _check(beginning, "approval")
    for status in ("pending", None):
        found = {
            str(row["approval_id"]) for row in await rows(client, "approvals", status=status, limit=1000)
        }
        if any(id.startswith(beginning) for id in found):
            return one(beginning, found, "approval", client.workspace)
    return one(beginning, (), "approval", client.workspace)


def one(beginning: str, ids: Iterable[str], what: str, workspace: str) -> str:
    """The only one of `ids` that begins so, or is it. Raises SetupProblem (QD-CLI-003)."""
    found = sorted(id for id in ids if id.startswith(beginning))
    if beginning in found or len(found) == 1:
        return beginning if beginning in found else found[0]
    if not found:
        raise SetupProblem(
            f"the workspace {workspace!r} has no {what} {beginning!r}",
            code="QD-CLI-003",
            hint=f"see `quarterdeck -w {workspace} {what} list`",
        )
    shown = ", ".join(found[:4]) + (" …" if len(found) > 4 else "")
    raise SetupProblem(
        f"{beginning!r} is the beginning of {len(found)} {what}s",
        code="QD-CLI-003",
        hint=f"say more of it: {shown}",
    )


def _check(beginning: str, what: str) -> None:
    if not is_token(beginning):
        raise SetupProblem(
            f"{beginning!r} can't be the id of a {what}",
            code="QD-CLI-003",
            hint="letters, digits, _ and -, as the lists show them",
        )


async def _missions(client: "Client", subjects: str) -> set[str]:
    """The aggregate ids of mission events on these subjects; `workspace_declared` is not a mission's."""
    found: set[str] = set()
    offset = 0
    for _ in range(PAGES):
        request = {"subjects_filter": subjects, "offset": offset}
        reply = await api(client.wire.connection, "STREAM.INFO.EVENTS", request)
        names = list((reply.get("state") or {}).get("subjects") or {})
        found.update(
            parts[3] for parts in (name.split(".") for name in names) if parts[4] != "workspace_declared"
        )
        offset += len(names)
        if not names or offset >= int(reply.get("total", 0)):
            break
    return found
