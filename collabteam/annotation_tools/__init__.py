"""Building blocks of files for other annotation tools, shared by exports and task exchange."""
