"""Tables that people open in a spreadsheet."""

from __future__ import annotations


def no_formula(text: str) -> str:
    """A text that a spreadsheet does not run as a formula, whatever a video is called.

    See https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
