"""Quarterdeck: what its services share. Start at `quarterdeck.client`; ARCHITECTURE.md draws the rooms."""

__version__ = "0.1.0"
