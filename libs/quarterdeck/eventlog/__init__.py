"""The event log: pure deciders above, an append-only stream with fences below, group commit between.

`decider` says what a service must provide, `store` what a stream must hold to, `commit` joins the two
and `writer` appends what was decided together.
"""
