"""Quarterdeck: what its services share. Start at `quarterdeck.client`; the rooms are drawn in ARCHITECTURE.md."""

__version__ = "0.1.0"
