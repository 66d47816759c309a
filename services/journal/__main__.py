"""`python -m services.journal`: the journal service alone."""

from quarterdeck.chassis.main import run_alone
from services.journal.app import build
from services.journal.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
