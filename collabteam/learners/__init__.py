"""Learners: how labelled crops, and crops of the pool, become networks that vote."""
