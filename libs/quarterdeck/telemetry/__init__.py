"""Logging and traces: one mission is one trace, across every service."""
