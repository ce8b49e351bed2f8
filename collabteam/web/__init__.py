"""The review page: a person verifies crops in the browser."""
