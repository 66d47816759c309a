"""`python -m services.gateway`: the gateway alone."""

from quarterdeck.chassis.main import run_alone
from services.gateway.app import build
from services.gateway.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
