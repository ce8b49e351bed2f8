"""Verification by persons: queues, review sessions, and the exchange with other tools."""
