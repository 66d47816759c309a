"""What the edge does, one short function a step.

An LLM call: admit, reserve, forward, settle, record. A tool call: admit, propose, ask, redeem, act, return.
"""
