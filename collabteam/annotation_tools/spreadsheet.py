"""Tables that people open in a spreadsheet."""

from __future__ import annotations

import re

# Signs that begin a formula, also the wide and small ones of East Asian keyboards.
_SIGN = r"=+\-@\u2212\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
# What is not seen: some spreadsheets pass over it before they look for a sign.
_SKIPPED = (
    r"[\s\x00-\x20\"'\xad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0]*"
)
# Which of these separates cells depends on the language of the system.
_SEPARATOR = r"[;,|\t\r\n]"
_BEGINS = rf"\A(?={_SKIPPED}[{_SIGN}\t\r\n])|(?<={_SEPARATOR})(?={_SKIPPED}[{_SIGN}])"
_FORMULA = re.compile(_BEGINS)
_ESCAPED = re.compile(_BEGINS.replace("(?=" + _SKIPPED, "'(?=" + _SKIPPED))


def no_formula(text: str) -> str:
    """Escape a text so that no spreadsheet runs it, or a part of it, as a formula.

    See https://owasp.org/www-community/attacks/CSV_Injection. A ``'`` comes before whatever a
    spreadsheet in any language could take for the begin of a formula, at the start of the text and
    behind each character that separates cells somewhere.
    """
    return _FORMULA.sub("'", text)


def without_escape(cell: str) -> str:
    """Return the text of a cell that :func:`no_formula` may have escaped."""
    return _ESCAPED.sub("", cell)
