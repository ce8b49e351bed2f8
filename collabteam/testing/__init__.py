"""Conformance suites: what every implementation of a seam must do, for ours and for yours."""
