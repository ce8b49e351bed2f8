"""A person checks a random sample of the labels; a certificate says what that proves."""
