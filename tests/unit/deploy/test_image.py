"""What deploy/images/Dockerfile promises, as far as it can be seen without building it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from services.all import NAMES

ROOT = Path(__file__).parents[3]
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in (ROOT / "deploy/images/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def _all(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def _copied() -> list[str]:
    """What comes from the checkout."""
    return [source for rest in _all("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]]


def test_the_base_is_the_oldest_python_that_the_project_takes_by_a_named_tag() -> None:
    """No `latest`, nothing untagged."""
    bases = {rest.split()[0] for rest in _all("FROM")}
    assert bases == {"python:3.11-slim-bookworm"}


def test_dependencies_are_held_to_their_hashes() -> None:
    """What is installed is the lock, by hash, and the project, without dependencies or a fetched builder."""
    installs = [rest for rest in _all("RUN") if "pip install" in rest]
    assert len(installs) == 2
    assert "--require-hashes -r requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]


def test_nothing_runs_as_root() -> None:
    """The last word on the user is a number that is not 0."""
    user = _all("USER")[-1]
    assert [int(part) > 0 for part in user.split(":")] == [True, True]


def test_what_is_copied_is_what_is_not_ignored() -> None:
    """Nothing else of a checkout, a key or a journal least of all, is even sent to the builder."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == set(_copied())


def test_the_files_that_are_copied_are_enough_to_build_the_project(tmp_path: Path) -> None:
    """A wheel built from them alone has the libraries and every service."""
    for name in _copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "out").iterdir()
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"services/{name}/__main__.py" for name in NAMES} <= names
    assert "quarterdeck/bus/embedded.py" in names


@pytest.mark.parametrize("directory", ["bus", "journal", "keys", "nats", "runs", "sockets"])
def test_a_volume_gets_its_owner_from_the_image(directory: str) -> None:
    """Each place that docker-compose.yml mounts a volume at is made for the image's user."""
    (made,) = (rest for rest in _all("RUN") if "useradd" in rest)
    assert directory in made.split(" in ", 1)[1].split(";")[0].split()
    assert f"/var/lib/quarterdeck/{directory}" in (ROOT / "docker-compose.yml").read_text()
