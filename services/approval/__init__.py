"""Approval: which actions wait for a person, who decided, and the grant that the executor checks.

Decides: SetPolicy, RequestApproval, DecideApproval, RedeemGrant, ExpireApprovals, CloseMission.
Answers: ShowApproval.
Consumes: mission.completed, mission.failed, mission.cancelled (what the mission still asks is cancelled).
Emits: policy_set, requested, waived, decided, expired, cancelled, answered_late, grant_redeemed.

INV-20  No grant without a decision on record: a rule that holds, or a person who says yes in time. A rule
        that can't be judged denies, and a tool that no rule names waits.
INV-21  A grant is good for one execution of one tool with one set of arguments in one mission, until it
        expires or the mission is over.
"""
