"""The one exception that a person is meant to read."""


class UserError(Exception):
    """Bad input or a state that only the user can change.

    The message is one line that says what was expected, what came, and what to do. Commands
    print it without a traceback and exit with code 2; nothing that was there has been changed.
    """
