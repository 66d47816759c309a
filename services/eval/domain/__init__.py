"""Pure: `trajectory` counts, `comparison` compares, `evaluations` decides."""

from services.eval.domain.evaluations import SERVICE, State, answer, decide, diff, evolve, initial

__all__ = ["SERVICE", "State", "answer", "decide", "diff", "evolve", "initial"]
