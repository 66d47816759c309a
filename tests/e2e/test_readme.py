"""What the README shows works as it is written."""

import asyncio
import json
import re
import shlex
import signal
from pathlib import Path

import nats

from tests.e2e.conftest import ROOT, CommandLine

README = (ROOT / "README.md").read_text()


def test_every_make_target_that_it_names_is_there() -> None:
    """`make <target>` in the README is a target of the Makefile, and each VARIABLE= is one that it reads."""
    makefile = (ROOT / "Makefile").read_text()
    calls = re.findall(r"`?(?:YES=1 )?make ([a-z-]+)((?: [A-Z_]+=\S+)*)", README)
    assert {"run", "test", "up"} <= {target for target, _ in calls}
    for target, variables in calls:
        assert f"\n{target}:" in makefile, target
        for name in re.findall(r"([A-Z_]+)=", variables):
            assert f"$({name})" in makefile, name


def test_every_place_that_it_names_is_there() -> None:
    """The table of where to change what points at files and folders that exist."""
    table = README.split("## Where do I change X?")[1].split("\n## ")[0]
    for path in re.findall(r"`((?:services|libs|proto|examples)/[^`<]*)`", table):
        assert (ROOT / path).exists(), path


async def test_a_mission_is_published_from_anywhere(quarterdeck: CommandLine) -> None:
    """The three commands under that heading, with a bare NATS client in the place of the `nats` tool."""
    block = README.split("## A mission from anywhere")[1].split("```")[1]
    apply, publish, follow = block.replace("\\\n", " ").strip().splitlines()
    up = await quarterdeck.start("up", "--nats-port", "0", "--gateway-port", "0")
    async with asyncio.timeout(60):
        while not (quarterdeck.data_dir / "runtime.json").exists():
            await asyncio.sleep(0.05)
    applied = await quarterdeck(*shlex.split(apply)[1:])
    assert applied.code == 0, applied.err
    words = shlex.split(publish)
    await _publish(quarterdeck.data_dir, words[words.index("pub") + 1], words[-1])
    followed = await quarterdeck(*shlex.split(follow)[1:])
    # Nobody gave it a file to profile: the agent says so and ends, and the mission with it.
    assert followed.code == 1, followed.err
    assert "accepted" in followed.out
    up.send_signal(signal.SIGTERM)
    await asyncio.wait_for(up.communicate(), 30)


async def _publish(data_dir: Path, subject: str, payload: str) -> None:
    runtime = json.loads((data_dir / "runtime.json").read_text())
    connection = await nats.connect(runtime["nats_url"], nkeys_seed=runtime["nkey"])
    await connection.jetstream().publish(subject, payload.encode())
    await connection.close()
