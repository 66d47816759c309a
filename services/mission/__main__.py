"""`python -m services.mission`: the mission service alone."""

from quarterdeck.chassis.main import run_alone
from services.mission.app import build
from services.mission.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
