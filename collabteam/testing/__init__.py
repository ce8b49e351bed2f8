"""Conformance suites: checks for every implementation of a seam, ours and yours."""
