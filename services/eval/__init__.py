"""Eval: a mission's trajectory as numbers, held against its baseline by itself.

Decides: EvaluateMission, SetBaseline.
Answers: ShowMetrics, DiffMissions.
Consumes: mission.completed, mission.failed, mission.cancelled (and asks the journal for its events).
Emits: metrics_recorded, baseline_set, compared, regression_flagged.

INV-40 A mission is measured once, from the events up to its end and from nothing else: measured again it
       gives the same numbers.
INV-41 What regressed against a baseline is flagged in the same append as the comparison: there is no
       comparison that says worse without its flag.
"""
