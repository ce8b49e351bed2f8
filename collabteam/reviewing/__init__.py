"""What a person verifies: queues, review sessions, and the exchange with other tools."""
