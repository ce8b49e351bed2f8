"""The loop of rounds: select, train, measure."""
