"""Gateway: the edge that agents speak to, with an LLM endpoint (OpenAI's and Anthropic's form), a tool
endpoint (MCP) and a secrets endpoint. It asks the services that decide, and records what happened.

Decides: RecordCall, RecordReplay, RecordRefusal, ProposeAction, RecordExecution, RecordReturn (its own: they
never leave its process), CloseTrajectory.
Asks: mission.authenticate; budget.reserve, .settle, .release; approval.request, .show, .redeem; vault.use.
Consumes: mission.run_ended (closes the run's listeners), mission.completed, .failed, .cancelled.
Emits: llm_call_completed, llm_call_replayed, llm_call_refused, llm_call_failed, tool_proposed, tool_executed,
       tool_returned, trajectory_closed.

INV-10  A call leaves only with a durable reservation of its worst case, and every reservation is settled or
        released, whatever becomes of the agent that asked.
INV-11  No answer reaches its end at the agent before it is on record: after a crash, the next attempt finds
        every answer that this one acted on, and pays for none of them again.
INV-12  An action acts at most once: a repeat in a later attempt or after a restart finds what was recorded,
        or sends the same Idempotency-Key again where nothing was.
"""
