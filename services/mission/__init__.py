"""Mission: the process manager. Takes mission requests, runs their tasks, ends them.

Decides: SubmitMission, CancelMission, DeclareWorkspace, ObserveRun, ObserveApproval.
Answers: IssueToken (to the sandbox service), Authenticate (to the gateway).
Consumes: sandbox.started, sandbox.ended, sandbox.unstartable,
          approval.requested, approval.decided, approval.expired, approval.cancelled.
Emits: workspace_declared, accepted, refused, run_requested, run_started, run_ended, parked, resumed,
       cancel_requested, completed, failed, cancelled.
Sends: cmd.sandbox.start, cmd.sandbox.stop.

INV-6  One request id is one mission, and a mission ends exactly once.
INV-7  A mission token speaks for one run and is dead as soon as that run is over.
"""
