"""The direction of every import, and what stays pure. The contracts stand in pyproject.toml."""

import ast
import contextlib
import io
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from services.all import NAMES

ROOT = Path(__file__).parents[1]
PURE = ("libs/quarterdeck/contracts", "libs/quarterdeck/kernel", "services/*/domain", "services/*/domain.py")
CLOCKS = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid7", "urandom", "getrandom"}
"""Calls that read a clock or make something random, whatever they are called on."""
BUILT_IN_EFFECTS = {"print", "input", "open", "__import__"}


def test_imports_point_one_way() -> None:
    """Every contract of [tool.importlinter] is kept; the message names each import that breaks one."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, f"an import points the wrong way:\n{said.getvalue()}"


def test_every_service_is_under_the_contract_of_rooms() -> None:
    """A service that is added is added to the contract of the rooms as well."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rooms,) = (contract for contract in contracts if contract["id"] == "rooms")
    folders = {f"services.{path.parent.name}" for path in ROOT.glob("services/*/__init__.py")}
    assert set(rooms["containers"]) == folders == {f"services.{name}" for name in NAMES}


def _effects(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, call) for each call that reads a clock, makes something random, or touches the outside."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in CLOCKS:
                found.append((node.lineno, ast.unparse(called)))
            elif isinstance(called, ast.Name) and called.id in BUILT_IN_EFFECTS:
                found.append((node.lineno, called.id))
    return found


@pytest.mark.parametrize(
    ("source", "call"),
    [("at = datetime.now(UTC)", "datetime.now"), ("d = date.today()", "date.today"), ("open(p)", "open")],
)
def test_an_effect_in_pure_code_would_be_seen(source: str, call: str) -> None:
    """The search finds what it is meant to find."""
    assert _effects(ast.parse(source)) == [(1, call)]


def test_pure_code_reads_no_clock() -> None:
    """`datetime` is imported for its types alone: what decides is given the time and every id."""
    files = [path for pattern in PURE for found in ROOT.glob(pattern) for path in _modules(found)]
    assert len(files) > 20, "the rooms of the deciders have moved"
    found = [
        f"{path.relative_to(ROOT)}:{line}: {call}() — take it from the command's `at_ms` or `id`"
        for path in files
        for line, call in _effects(ast.parse(path.read_text()))
    ]
    assert not found, "\n".join(found)


def _modules(found: Path) -> list[Path]:
    return sorted(found.rglob("*.py")) if found.is_dir() else [found]
