"""Pure: the decider of steps and actions, prices, what the LLM protocols mean."""

from services.gateway.domain.trajectory import SERVICE, State, answer, decide, evolve, initial

__all__ = ["SERVICE", "State", "answer", "decide", "evolve", "initial"]
