"""Budget: money is reserved before a call leaves and settled after, at four scopes at once.

Decides: SetLimit, ReserveBudget, SettleBudget, ReleaseBudget, OpenPool, CloseRun, ExpireReservations.
Consumes: mission.accepted (opens the mission's pool), mission.run_ended (closes what a run still holds).
Emits: limit_set, pool_opened, reserved, reservation_refused, settled, released, expired, corrected.

INV-1  For every hard limit, at every instant: committed + reserved <= limit, unless a limit was lowered
       below what was already spent, or a provider charged more than the reserved worst case. A limit
       counts what was spent in its window before it was set.
INV-2  Each reservation ends exactly once: settled, released, or expired (and then at most corrected).
"""
