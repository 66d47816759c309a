"""`python -m services.eval`: the eval service alone."""

from quarterdeck.chassis.main import run_alone
from services.eval.app import build
from services.eval.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
