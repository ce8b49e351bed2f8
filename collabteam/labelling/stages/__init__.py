"""Stages of a labelling, in order: engine, score, calibrate, decide, write, measure, record."""
