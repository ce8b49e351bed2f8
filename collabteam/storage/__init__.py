"""Storage of a camera's files: paths, tables, locks, and the copy of an object store."""
