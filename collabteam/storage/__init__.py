"""Where a camera's files are: tables, locks, and the copy of an object store."""
