"""collabteam."""
