"""`python init.py SEED CONFIG`: the bus user's seed in SEED, made if missing, and CONFIG that lets it in.

Run before nats-server and the services; running it again changes nothing.
"""

import os
import sys
from pathlib import Path

from quarterdeck.bus.embedded import authorization, make_nkey


def main(seed: Path, config: Path) -> None:
    make_nkey(seed)
    part = config.with_name(config.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(authorization(seed) + "\n")
    part.replace(config)  # whole or not at all: half of it would be another configuration


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
