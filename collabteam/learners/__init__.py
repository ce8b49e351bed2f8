"""How a team is trained on one fold."""
