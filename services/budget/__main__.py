"""`python -m services.budget`: the budget service alone."""

from quarterdeck.chassis.main import run_alone
from services.budget.app import build
from services.budget.settings import Settings

if __name__ == "__main__":
    run_alone(build, Settings())
