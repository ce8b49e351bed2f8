"""Tables that people open in a spreadsheet."""

from __future__ import annotations


def no_formula(text: str) -> str:
    """Escape a text so that a spreadsheet does not run it as a formula.

    See https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def without_escape(cell: str) -> str:
    """Return the text of a cell that :func:`no_formula` may have escaped."""
    return cell[1:] if cell.startswith("'") and no_formula(cell[1:]) == cell else cell
