"""The example's report desk: its stand-in for an endpoint outside that wants a credential."""

import contextlib
import importlib.util
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

TOKEN_BYTES = 32


@dataclass(frozen=True)
class Desk:
    """`address` is `host:port`. The token is new each time and goes from here into the vault only."""

    address: str
    token: str

    def __repr__(self) -> str:
        return f"Desk({self.address!r})"


@contextlib.asynccontextmanager
async def report_desk(example: Path, directory: Path) -> AsyncIterator[Desk]:
    """Runs the desk while the block lasts, on the port it had before where that is free: a mission that an
    earlier run left in the middle still finds it."""
    module = _load(example / "desk.py")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    remembered = directory / "port"
    try:
        desk: Any = module.ReportDesk(directory, token, int(remembered.read_text()))
        await desk.start()
    except (OSError, ValueError):
        desk = module.ReportDesk(directory, token)
        await desk.start()
    remembered.write_text(str(desk.port))
    try:
        yield Desk(desk.address, token)
    finally:
        await desk.stop()


def _load(path: Path) -> ModuleType:
    """The example is a program beside the project, not a module of it."""
    source = importlib.util.spec_from_file_location("report_desk", path)
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    sys.modules[source.name] = module
    source.loader.exec_module(module)
    return module
