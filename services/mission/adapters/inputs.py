"""Looks at a mission's inputs before it is accepted: a broken file is refused now, not found by an agent."""

from quarterdeck.bus.artifacts import Artifacts
from quarterdeck.contracts.mission import Artifact
from quarterdeck.kernel.errors import SetupProblem
from services.mission.domain import Problem

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".md", ".json", ".jsonl", ".yaml", ".yml", ".xml")


class StoredInputs:
    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    async def look(self, inputs: tuple[Artifact, ...]) -> Problem | None:
        names = [artifact.name for artifact in inputs]
        if len(set(names)) != len(names):
            return Problem(
                code="QD-MIS-019",
                reason="same_name",
                message="two inputs have the same name",
                hint="each is a file of its own in /inputs",
            )
        for artifact in inputs:
            try:
                content = await self._artifacts.get(artifact.sha256)
            except SetupProblem as error:
                return Problem(
                    code="QD-MIS-008",
                    reason="input_missing",
                    message=f"input {artifact.name!r}: {error.message}",
                    hint="put the file into the object store ARTIFACTS under its SHA-256 first",
                )
            if problem := wrong_with(artifact.name, content):
                return Problem(
                    code="QD-MIS-009", reason="bad_input", message=problem, hint="send another file"
                )
        return None


def wrong_with(name: str, content: bytes) -> str:
    """Why a file can't be what its name says; empty when nothing speaks against it."""
    if not content.strip():
        return f"input {name!r} is empty"
    if not name.lower().endswith(TEXT_SUFFIXES):
        return ""
    if b"\0" in content:
        return f"input {name!r} is binary, its name promises text"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return f"input {name!r} is not UTF-8 text (byte {error.start:,})"
    if (
        name.lower().endswith((".csv", ".tsv"))
        and len([line for line in text.splitlines() if line.strip()]) < 2
    ):
        return f"input {name!r} has no row below its header"
    return ""
