"""The root filesystem, the checks of a spec against it, and the image made of it."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from services.sandbox.adapters import image, runtime
from services.sandbox.adapters.runtime import Bind, Root
from services.sandbox.ports import (
    PYTHON,
    SEARCH_PATH,
    CommandNotFound,
    Limits,
    Mount,
    SandboxSpec,
    SpecRefused,
)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A made-up host: a runtime with links, a home, a work directory."""
    for folder in ("usr/bin", "opt/env/bin", "opt/python/bin", "home", "work"):
        (tmp_path / folder).mkdir(parents=True)
    for program in ("usr/bin/tool", "opt/python/bin/python3.11", "home/secret-tool"):
        (tmp_path / program).touch(0o755)
    (tmp_path / "usr/bin/plain").touch(0o644)
    (tmp_path / "opt/env/bin/python").symlink_to("python3")
    (tmp_path / "opt/env/bin/python3").symlink_to("/opt/python/bin/python3.11")
    (tmp_path / "usr/bin/out").symlink_to("/srv/secret-tool")
    (tmp_path / "usr/bin/loop").symlink_to("loop")
    return tmp_path


@pytest.fixture
def root(host: Path) -> Root:
    binds = [Bind(str(host / path), f"/{path}") for path in ("usr", "opt/env", "opt/python", "work")]
    return Root(binds=tuple(binds), symlinks=(("/bin", "usr/bin"),), files=())


def spec(work: Path, **changes: object) -> SandboxSpec:
    values: dict[str, object] = {"run_id": "r", "argv": ("sh",), "env": {}, "work_dir": str(work)}
    return SandboxSpec(**{**values, **changes})  # type: ignore[arg-type]


def test_links_are_followed_as_inside(host: Path, root: Root) -> None:
    """A path resolves through the root's own links and those in what is bound, never to the host's tree."""
    assert runtime.resolve(root, "/bin/tool") == str(host / "usr/bin/tool")
    assert runtime.resolve(root, "/opt/env/bin/python") == str(host / "opt/python/bin/python3.11")
    assert runtime.resolve(root, "/opt/env/../env/bin/../bin/python") == str(
        host / "opt/python/bin/python3.11"
    )


def test_what_is_not_inside_does_not_resolve(root: Root) -> None:
    """A link out of the bound directories, a link to itself, and the parent of nothing lead nowhere."""
    for path in ("/usr/bin/out", "/usr/bin/loop", "/srv/secret-tool", "/nowhere/../usr/bin/tool", "/"):
        assert runtime.resolve(root, path) is None


def test_a_command_is_searched_in_the_given_path(host: Path, root: Root) -> None:
    """A bare name is looked up in PATH of env; a file that can't be executed is none."""
    work = host / "work"
    found = runtime.find_command(root, spec(work, argv=("python",), env={"PATH": "/usr/bin:/opt/env/bin"}))
    assert found == str(host / "opt/python/bin/python3.11")
    for argv in (("python",), ("plain",), ("/usr/bin",), ("./tool",)):
        with pytest.raises(CommandNotFound):
            runtime.find_command(root, spec(work, argv=argv))


def test_a_script_of_the_work_directory_is_a_command(host: Path, root: Root) -> None:
    """A relative path with a slash starts at /work."""
    (host / "work/run.sh").touch(0o755)
    assert runtime.find_command(root, spec(host / "work", argv=("./run.sh",))) == str(host / "work/run.sh")


def test_the_own_python_is_a_command_of_every_sandbox(tmp_path: Path) -> None:
    """Under SEARCH_PATH `python` is this interpreter, wherever it and its environment are installed."""
    whole = runtime.plan(runtime.host_root(), spec(tmp_path, argv=("python",), env={"PATH": SEARCH_PATH}))
    found = runtime.find_command(whole, spec(tmp_path, argv=(PYTHON,)))
    assert os.path.samefile(found, os.path.realpath(sys.executable))


def test_the_project_beside_an_environment_is_not_shown(tmp_path: Path) -> None:
    """Of an environment made in a project's own folder only the environment's parts are bound."""
    (tmp_path / "secret-plan.txt").write_text("x")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    code = (
        "from services.sandbox.adapters import runtime; print(*(b.target for b in runtime.host_root().binds))"
    )
    paths = [str(Path(__file__).parents[3]), *(path for path in sys.path if path)]
    shown = subprocess.run(
        [str(tmp_path / "bin/python"), "-c", code],
        env={"PYTHONPATH": ":".join(paths)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    assert f"{tmp_path}/bin" in shown and not any(
        str(tmp_path / "secret-plan.txt").startswith(f"{target}/") for target in shown
    )
    assert str(tmp_path) not in shown


BAD = [
    ({"run_id": "a/b"}, "QD-SBX-121"),
    ({"argv": ()}, "QD-SBX-121"),
    ({"argv": ("sh", "a\0b")}, "QD-SBX-121"),
    ({"argv": ("sh", "\ud800")}, "QD-SBX-121"),
    ({"env": {"A=B": "x"}}, "QD-SBX-121"),
    ({"env": {"": "x"}}, "QD-SBX-121"),
    ({"env": {"A": "x" * 70_000}}, "QD-SBX-121"),
    ({"limits": Limits(processes=0)}, "QD-SBX-121"),
    ({"edge_port": 70_000}, "QD-SBX-121"),
    ({"work_dir": "relative"}, "QD-SBX-121"),
    ({"work_dir": "/nowhere"}, "QD-SBX-122"),
    ({"work_dir": "/etc/passwd"}, "QD-SBX-122"),
    ({"mounts": (Mount(source="/nowhere", target="/agent"),)}, "QD-SBX-122"),
    ({"mounts": (Mount(source="/usr", target="agent"),)}, "QD-SBX-121"),
    ({"mounts": (Mount(source="/usr", target="/"),)}, "QD-SBX-121"),
    ({"mounts": (Mount(source="/usr", target="/agent/"),)}, "QD-SBX-121"),
    ({"mounts": (Mount(source="/usr", target="/proc/self"),)}, "QD-SBX-123"),
    ({"mounts": (Mount(source="/usr", target="/work/in"),)}, "QD-SBX-123"),
    ({"mounts": (Mount(source="/usr", target="/a"), Mount(source="/usr", target="/a/b"))}, "QD-SBX-123"),
    ({"mounts": tuple(Mount(source="/usr", target=f"/m/{n}") for n in range(33))}, "QD-SBX-121"),
    ({"argv": ("no-such-command",)}, "QD-SBX-124"),
]


@pytest.mark.parametrize(("changes", "code"), BAD)
def test_a_bad_spec_is_refused_with_its_code(changes: dict[str, object], code: str, tmp_path: Path) -> None:
    """Each kind of wrong value has a stable code."""
    with pytest.raises(SpecRefused) as refused:
        runtime.plan(runtime.host_root(), spec(tmp_path, **changes))
    assert refused.value.code == code


def test_a_private_source_is_refused_to_a_root_service(tmp_path: Path) -> None:
    """What others can't read is not shown to an agent that is nobody's relative; the refusal says so."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(SpecRefused, match="QD-SBX-122"):
        runtime.make_readable_by(1, 1, Root(binds=(Bind(str(private), "/agent"),), symlinks=(), files=()))


def test_equal_roots_make_equal_images(root: Root) -> None:
    """The image's tag is a function of its content."""
    first, second = image.archive(root, "x86_64"), image.archive(root, "x86_64")
    other = image.archive(Root(binds=(), symlinks=(("/bin", "usr"),), files=()), "x86_64")
    assert first == second and first[0] != other[0]


def test_the_image_has_links_files_and_an_open_tmp(root: Root) -> None:
    """The layer holds the root's links and files, and a /tmp that anybody may write to."""
    root = Root(binds=root.binds, symlinks=root.symlinks, files=(("/etc/hosts", b"127.0.0.1 localhost\n"),))
    _, content = image.archive(root, "aarch64")
    with tarfile.open(fileobj=io.BytesIO(content)) as outer:
        config = json.load(outer.extractfile("config.json"))  # type: ignore[arg-type]
        layer = outer.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            assert inner.getmember("bin").linkname == "usr/bin"
            assert inner.getmember("tmp").mode == 0o1777
            assert inner.getmember("etc/hosts").size == 20
    assert config["architecture"] == "arm64"
