"""Eval: a mission's trajectory as numbers, held against its baseline by itself.

Decides: EvaluateMission, SetBaseline.
Answers: ShowMetrics, DiffMissions.
Consumes: mission.completed, mission.failed, mission.cancelled (and asks the journal for its events).
Emits: metrics_recorded, baseline_set, compared, regression_flagged.
"""
