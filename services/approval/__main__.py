"""`python -m services.approval`: the approval service alone."""

from quarterdeck.chassis.main import run_alone
from services.approval.app import build
from services.approval.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
