"""What people look at: terminal, figures, the fleet's page, W&B."""
