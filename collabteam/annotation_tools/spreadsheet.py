"""Tables that people open in a spreadsheet."""

from __future__ import annotations


def no_formula(text: str) -> str:
    """Escape a text so that a spreadsheet does not run it as a formula.

    See https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
