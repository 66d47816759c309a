"""The data directory: private, locked, and clear about what is wrong with it."""

import multiprocessing
import os
import resource
import signal
import socket
import stat
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from quarterdeck.cli.datadir import DataDir, Runtime
from quarterdeck.kernel.errors import SetupProblem


def runtime(pid: int, port: int = 1) -> Runtime:
    return Runtime(
        pid=pid,
        nats_url=f"nats://127.0.0.1:{port}",
        nats_monitor_url="http://127.0.0.1:2",
        nkey="keys/bus.nk",
        gateway_url="http://127.0.0.1:3",
        started_at_ms=1,
    )


def test_prepare_makes_every_folder_for_the_owner_only(tmp_path: Path) -> None:
    """After prepare all folders are there, mode 0700, and the probe is gone."""
    home = DataDir(tmp_path / "deep" / "data")
    home.prepare()
    folders = (
        home.path,
        home.nats,
        home.keys,
        home.journal,
        home.logs,
        home.sockets,
        home.runs,
        home.missions,
    )
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert sorted(entry.name for entry in home.path.iterdir()) == sorted(f.name for f in folders[1:])


def test_a_directory_that_others_could_read_is_closed(tmp_path: Path) -> None:
    """prepare takes away what others may do on a directory that was already there."""
    (tmp_path / "data").mkdir(mode=0o755)
    DataDir(tmp_path / "data").prepare()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    """A data directory that can't be made is QD-SET-008 and names the path and the setting."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(SetupProblem) as problem:
        DataDir(tmp_path / "taken" / "data").prepare()
    assert problem.value.code == "QD-SET-008"
    assert "taken" in problem.value.message
    assert "QUARTERDECK_DATA_DIR" in problem.value.hint


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    """When the probe can't be written whole, prepare says so and leaves no probe behind."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(SetupProblem) as problem:
            DataDir(tmp_path / "data").prepare()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert problem.value.code == "QD-SET-008"
    assert not list((tmp_path / "data").glob(".probe*"))


def _hold(path: Path, channel: Connection) -> None:
    with DataDir(path).lock():
        channel.send(os.getpid())
        channel.recv()


def test_a_second_quarterdeck_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    """QD-SET-009 names the holder's pid; when the holder is killed the next one gets the lock."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    holder = spawn.Process(target=_hold, args=(tmp_path, theirs))
    holder.start()
    pid = ours.recv()
    with pytest.raises(SetupProblem) as problem, DataDir(tmp_path).lock():
        pass
    assert problem.value.code == "QD-SET-009"
    assert f"process {pid}" in problem.value.message
    holder.kill()
    holder.join()
    ours.close()
    with DataDir(tmp_path).lock():
        assert DataDir(tmp_path).lock_file.read_text() == str(os.getpid())


def test_the_lock_is_free_after_an_error_inside(tmp_path: Path) -> None:
    """Whatever ends the block releases the directory."""
    with pytest.raises(KeyboardInterrupt), DataDir(tmp_path).lock():
        raise KeyboardInterrupt
    with DataDir(tmp_path).lock():
        pass


def test_runtime_is_private_and_comes_back_whole(tmp_path: Path) -> None:
    """runtime.json is 0600, equal when read again, and gone after clear_runtime."""
    home = DataDir(tmp_path)
    home.write_runtime(runtime(os.getpid()))
    assert stat.S_IMODE(home.runtime_file.stat().st_mode) == 0o600
    assert home.read_runtime() == runtime(os.getpid())
    home.clear_runtime()
    assert home.read_runtime() is None
    home.clear_runtime()


def test_a_dead_instance_is_no_instance(tmp_path: Path) -> None:
    """A runtime.json whose process is gone, or that is damaged, reads as None."""
    home = DataDir(tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=str)
    child.start()
    child.join()
    assert child.pid is not None
    home.write_runtime(runtime(child.pid))
    assert home.read_runtime() is None
    home.runtime_file.write_text('{"pid": ')
    assert home.read_runtime() is None


def test_an_instance_is_live_only_while_its_bus_takes_connections(tmp_path: Path) -> None:
    """The same runtime.json is live with a listener and not without."""
    home = DataDir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        home.write_runtime(runtime(os.getpid(), listener.getsockname()[1]))
        assert home.live_instance() == home.read_runtime() is not None
    assert home.live_instance() is None
