"""What can be told of a camera over time: drift, facts, the next step."""
