"""The bus contract: one module a service with its commands, asks, replies and events.

Every message is a frozen struct. `registry` knows them all; `proto/` is generated from it.
A shipped event version never changes: a new meaning is a new version.
"""
