"""The review page, on which a person verifies crops in the browser."""
