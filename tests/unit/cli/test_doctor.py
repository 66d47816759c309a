"""The doctor says what is missing and how to get it, and changes nothing."""

import json
import socket
from pathlib import Path

import pytest

from quarterdeck.cli import machine
from quarterdeck.cli.main import run


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in an empty directory where nothing runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("QUARTERDECK_DATA_DIR", "QUARTERDECK_NATS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_machine_that_can_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, each check once with what was found, and no file was made."""
    assert run(["doctor", "--no-sandbox", "--json"]) == 0
    diagnosis = json.loads(capsys.readouterr().out)
    assert diagnosis["ok"] is True
    checks = {check["name"]: check for check in diagnosis["checks"]}
    assert {"python", "data directory", "disk", "nats-server", "instance", "port"} <= set(checks)
    assert checks["nats-server"]["what"].startswith("v2.")
    assert (checks["instance"]["ok"], checks["instance"]["essential"]) == (False, False)
    assert all(check["ok"] or check["fix"] for check in checks.values())
    assert list(tmp_path.iterdir()) == []


def test_what_is_essential_and_missing_is_exit_code_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the data directory should be: named, with the way out."""
    (tmp_path / "taken").write_text("")
    assert run(["doctor", "--no-sandbox", "--data-dir", "taken/data"]) == 4
    out = capsys.readouterr().out
    assert "can't be written" in out
    assert "--data-dir" in out
    assert "Something essential is missing" in out


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not essential: `run` takes any free port, and `up` can be told another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("quarterdeck.cli.instance.NATS_PORT", taken.getsockname()[1])
        bus = machine.ports()[0]
    assert (bus.ok, bus.essential, bus.code) == (False, False, "QD-SET-003")
    assert "QUARTERDECK_NATS_PORT" in bus.fix
