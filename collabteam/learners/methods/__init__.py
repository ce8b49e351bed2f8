"""The built-in learners, one module each."""
