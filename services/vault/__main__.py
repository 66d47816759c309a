"""`python -m services.vault`: the vault alone."""

from quarterdeck.chassis.main import run_alone
from services.vault.app import build
from services.vault.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
