"""docker-compose.yml names what the code has. No container is started here."""

import importlib
import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import quarterdeck
from quarterdeck.sidecar.handover import gateway_socket
from services.all import NAMES

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docker-compose.yml"
DATA_DIR = "/var/lib/quarterdeck"


def _compose() -> dict[str, Any]:
    loaded = yaml.safe_load(FILE.read_text())
    assert isinstance(loaded, dict)
    return loaded


COMPOSE = _compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _mounts(service: str) -> dict[str, tuple[str, bool]]:
    """Source to (path inside, whether it can be written)."""
    found = {}
    for mount in SERVICES[service].get("volumes", []):
        source, target, *mode = mount.split(":")
        found[source] = (target, mode != ["ro"])
    return found


def test_docker_itself_finds_the_file_valid() -> None:
    """`docker compose config` reads the file without a complaint."""
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no docker with compose on this machine: the file is checked by the other tests alone")
    checked = subprocess.run(
        [docker, "compose", "-f", str(FILE), "config", "-q"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert checked.returncode == 0, checked.stderr
    assert not checked.stderr


def test_there_is_a_container_for_every_service() -> None:
    """Every service of the code, nats-server and what sets it up: no more, no fewer."""
    assert set(SERVICES) == {*NAMES, "nats", "init"}


@pytest.mark.parametrize("name", NAMES)
def test_a_container_runs_its_service(name: str) -> None:
    """`python -m services.<name>` is a module that is there."""
    assert SERVICES[name]["command"] == ["python", "-m", f"services.{name}"]
    assert importlib.util.find_spec(f"services.{name}.__main__")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_one_that_the_service_has(name: str) -> None:
    """Each QUARTERDECK_* variable is a field of the service's settings and takes the value given."""
    settings = importlib.import_module(f"services.{name}.settings").Settings
    prefix = settings.model_config["env_prefix"]
    environment: dict[str, str] = SERVICES[name]["environment"]
    fields = {variable.removeprefix(prefix).lower(): value for variable, value in environment.items()}
    assert all(variable.startswith(prefix) for variable in environment)
    assert set(fields) <= set(settings.model_fields)
    read = settings(**fields)
    assert read.data_dir == Path(DATA_DIR)
    assert not read.allow_unsynced_nats


@pytest.mark.parametrize("name", NAMES)
def test_every_service_finds_the_bus_and_may_open_it(name: str) -> None:
    """The addresses are the container's `nats`; the key is mounted, read-only, where the settings say."""
    environment = SERVICES[name]["environment"]
    assert environment["QUARTERDECK_NATS_URL"] == "nats://nats:4222"
    assert environment["QUARTERDECK_NATS_MONITOR_URL"] == "http://nats:8222"
    target, writable = _mounts(name)["bus-key"]
    assert environment["QUARTERDECK_NATS_NKEY"].startswith(f"{target}/")
    assert not writable
    assert SERVICES[name]["depends_on"] == {"nats": {"condition": "service_healthy"}}
    assert "bus" in SERVICES[name]["networks"]


def test_the_order_of_the_start_is_key_then_bus_then_services() -> None:
    """nats-server waits for its users, and its health is asked for where the services ask for its state."""
    assert SERVICES["nats"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert "http://127.0.0.1:8222/healthz" in SERVICES["nats"]["healthcheck"]["test"][-1]


def test_nothing_is_published_beyond_loopback() -> None:
    """A published port names 127.0.0.1; nothing shares the host's network."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published), published
    assert all(service.get("network_mode") in (None, "none") for service in SERVICES.values())


def test_the_gateways_port_is_the_one_that_is_published() -> None:
    """What the gateway listens on inside is what the host's loopback leads to."""
    environment = SERVICES["gateway"]["environment"]
    (published,) = SERVICES["gateway"]["ports"]
    assert published.split(":")[2] == environment["QUARTERDECK_GATEWAY_PORT"]


def test_no_key_is_mounted_where_it_is_not_needed() -> None:
    """Each service has its own keys; only init writes the bus user, and only nats reads its public half."""
    readers = {
        volume: {name for name in SERVICES if volume in _mounts(name)} for volume in COMPOSE["volumes"]
    }
    assert readers == {
        "bus-key": {*NAMES, "init"},
        "bus-users": {"init", "nats"},
        "bus-store": {"nats"},
        "journal": {"journal"},
        "journal-keys": {"journal"},
        "mission-keys": {"mission"},
        "approval-keys": {"approval"},
        "vault-keys": {"vault"},
        "sockets": {"gateway", "sandbox"},
        "runs": {"sandbox"},
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_place_that_a_service_writes_to_is_mounted(name: str) -> None:
    """The root is read-only: each directory that a service derives from the data directory is a volume."""
    settings = importlib.import_module(f"services.{name}.settings").Settings(data_dir=DATA_DIR)
    code = "".join(path.read_text() for path in (ROOT / "services" / name).rglob("*.py"))
    writable = {target for target, may in _mounts(name).values() if may}
    needed = {str(getattr(settings, f)) for f in ("keys_dir", "journal_dir", "runs_dir") if f".{f}" in code}
    if "gateway_socket(" in code:
        needed.add(str(gateway_socket(settings.data_dir).parent))
    assert writable == needed


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_more_rights_than_it_needs(name: str) -> None:
    """No capability, no privilege, a read-only root, and Docker's own filters stay on but for the sandbox."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "user"} & set(service)
    lifted = {"seccomp:unconfined", "apparmor:unconfined", "systempaths=unconfined"}
    assert set(service["security_opt"]) == {"no-new-privileges:true"} | (
        lifted if name == "sandbox" else set()
    )
    assert "docker.sock" not in str(service.get("volumes"))


def test_only_two_containers_reach_the_outside() -> None:
    """The bus is a network without a way out; the gateway calls out, and nats is published on loopback."""
    assert COMPOSE["networks"]["bus"] == {"internal": True}
    assert {name for name in SERVICES if "outside" in SERVICES[name].get("networks", [])} == {
        "gateway",
        "nats",
    }


def test_one_image_is_built_once_and_carries_the_version() -> None:
    """All run one image, which one service builds, tagged with the version of the code."""
    assert {service["image"] for service in SERVICES.values()} == {f"quarterdeck:{quarterdeck.__version__}"}
    (build,) = (service["build"] for service in SERVICES.values() if "build" in service)
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_everything_but_init_comes_back() -> None:
    """A killed service or server is started again; what only sets up is not."""
    assert {name: service["restart"] for name, service in SERVICES.items()} == {
        **dict.fromkeys((*NAMES, "nats"), "unless-stopped"),
        "init": "no",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_file_that_is_mounted_is_there(name: str) -> None:
    """A bind of a missing file would make an empty directory in its place."""
    for source in _mounts(name):
        assert source in COMPOSE["volumes"] or (ROOT / source).is_file(), source
