"""A workspace as a file, brought into force.

`apply` uploads what agents run and declares the rest; each part is recorded by the service that owns it, and
doing it again changes nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from quarterdeck.client.client import Client
from quarterdeck.client.workspacefile import MODEL, WorkspaceFile, read_transcript, recorded_model
from quarterdeck.contracts.vault import ListSecrets
from quarterdeck.kernel.errors import SetupProblem


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that `apply` saw to. `missing`: a secret that a person still has to give."""

    kind: Literal["program", "transcript", "policy", "budget", "crews", "secret"]
    name: str
    outcome: Literal["set", "unchanged", "uploaded", "missing", "differs"]
    detail: str = ""


async def apply(client: Client, path: Path, variables: Mapping[str, str] | None = None) -> list[Change]:
    """Read the file, then bring the workspace into line with it. `variables` fill its `${name}`.

    Gates and limits stand before the crews that they bind. Limits that the file does not name stay as they
    are.
    Raises SetupProblem as WorkspaceFile does, QD-CLI-027 when the file is for another workspace than the
    client's; Refused when a service says no (what came before it is done: mend the file and apply again).
    """
    return await apply_file(client, WorkspaceFile(path, variables))


async def apply_file(client: Client, file: WorkspaceFile) -> list[Change]:
    """`apply` for a file that was read already."""
    if file.workspace != client.workspace:
        raise SetupProblem(
            f"{file.path} is for the workspace {file.workspace!r}, not {client.workspace!r}",
            code="QD-CLI-027",
            hint=f"leave out --workspace, or say -w {file.workspace}",
        )
    changes: list[Change] = []
    stored: dict[str, str] = {}
    for kind, contents in (("program", file.programs), ("transcript", file.transcripts)):
        for name, content in contents.items():
            stored[name] = await client.artifacts.put(content)
            detail = f"{len(content):,} bytes, sha256 {stored[name][:12]}…"
            changes.append(Change(kind=kind, name=name, outcome="uploaded", detail=detail))  # type: ignore[arg-type]
    policy = await client.ask(file.policy())
    changes.append(
        Change(
            kind="policy",
            name=f"version {policy.version}",
            outcome="set" if policy.changed else "unchanged",
            detail=f"{len(file.part.policy)} rules",
        )
    )
    for limit in file.limits():
        reply = await client.ask(limit)
        outcome: Literal["set", "unchanged"] = "set" if reply.changed else "unchanged"
        changes.append(Change(kind="budget", name=limit.scope, outcome=outcome, detail=limit.window))
    declared = await client.ask(file.crews(stored))
    changes.append(
        Change(
            kind="crews",
            name=", ".join(str(crew.name) for crew in file.part.crews),
            outcome="set" if declared.changed else "unchanged",
        )
    )
    return changes + await _secrets(client, file)


async def resolve_model(client: Client, model: str, beside: Path = Path()) -> str:
    """A model as services name it: `recorded:<path>` is stored and becomes `recorded:<stem>@<sha256>`, any
    other stays as it is. Paths are relative to `beside`.

    Raises SetupProblem: QD-CLI-026 for a transcript that can't be read, QD-CLI-028 for what is no model.
    """
    if not MODEL.fullmatch(model):
        raise SetupProblem(
            f"{model!r} is no model",
            code="QD-CLI-028",
            hint="<provider>:<model>, for example anthropic:claude-sonnet-4-5 or recorded:steady.json",
        )
    for name, content in read_transcript(model, beside).items():
        return recorded_model(name, await client.artifacts.put(content))
    return model


async def _secrets(client: Client, file: WorkspaceFile) -> list[Change]:
    """What the vault holds of the declared secrets; giving one is a person's doing."""
    if not file.part.secrets:
        return []
    kept = {line.name: line for line in (await client.ask(ListSecrets())).secrets}
    changes = []
    for part in file.part.secrets:
        line = kept.get(str(part.name))
        outcome: Literal["missing", "differs", "unchanged"] = "unchanged"
        if line is None or line.revoked:
            outcome = "missing"
        elif (line.scope, line.uses, line.hosts, line.tier) != (part.scope, part.uses, part.hosts, part.tier):
            outcome = "differs"
        changes.append(Change(kind="secret", name=str(part.name), outcome=outcome, detail=str(part.scope)))
    return changes
