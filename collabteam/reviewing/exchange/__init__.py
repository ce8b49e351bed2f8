"""Exchange with other annotation tools: crops go out as tasks, answers come back."""
