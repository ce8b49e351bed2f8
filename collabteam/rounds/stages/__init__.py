"""Stages of a round, in order: sample or select, read, train, elect, score, evaluate, record."""
