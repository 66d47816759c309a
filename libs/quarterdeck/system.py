"""The only place that reads the clock and randomness. Edges are given these; deciders never are."""

import os
import time

from quarterdeck.kernel.ids import uuid7


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class SystemIds:
    def new(self) -> str:
        return uuid7(time.time_ns() // 1_000_000, os.urandom(10))
