"""How often the same thing was asked before in its run.

Numbers are claimed here and confirmed by the log: they survive a restart, and two equal calls at once
get two.
"""

from collections.abc import Callable

Counter = tuple[str, ...]
"""A run and what is asked in it."""


class Occurrences:
    def __init__(self) -> None:
        self._claimed: dict[str, dict[Counter, set[int]]] = {}

    def claim(self, mission_id: str, counter: Counter, start: int, taken: Callable[[int], bool]) -> int:
        """The lowest number from `start` that is neither claimed nor `taken`. Never waits: two callers can't
        get the same."""
        claimed = self._claimed.setdefault(mission_id, {}).setdefault(counter, set())
        number = start
        while number in claimed or taken(number):
            number += 1
        claimed.add(number)
        return number

    def give_back(self, mission_id: str, counter: Counter, number: int) -> None:
        """It came to nothing: the next one to ask is that one again."""
        self._claimed.get(mission_id, {}).get(counter, set()).discard(number)

    def forget(self, mission_id: str) -> None:
        self._claimed.pop(mission_id, None)
