"""`python -m services.sandbox`: the sandbox service alone."""

from quarterdeck.chassis.main import run_alone
from services.sandbox.app import build
from services.sandbox.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
