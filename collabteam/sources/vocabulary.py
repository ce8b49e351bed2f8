"""Words of datasets: the names of splits, and the spellings of a missing value."""

from __future__ import annotations

import re
import unicodedata

TRAIN, VAL, TEST, HELD_OUT, POOL = "train", "val", "test", "held-out", "pool"

SPLITS_EXPECTED = "train, val, test, held-out or pool"
"""The splits, for messages; spellings such as ``Validation`` or ``testing`` are understood."""

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "dev"), VAL),
    "development": VAL,
    **dict.fromkeys(("test", "testing", "tests", "tst"), TEST),
    # Ours: further crops of objects that the test set shows. Others call a test set so, and in
    # either sense these crops must not train.
    **dict.fromkeys(("held-out", "heldout", "hold-out", "holdout"), HELD_OUT),
}
# Not in _SPLITS: a folder called pool may well be the class of swimming pools.
_SPLITS_OF_CELLS = _SPLITS | {POOL: POOL}
# What pandas reads as missing, and what Python, SQL and Arrow print for it.
_MISSING = frozenset(
    (
        *("", "nan", "-nan", "+nan", "none", "null", "nil", "nat", "na", "n/a", "<na>"),
        *("#na", "#n/a", "#n/a n/a", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
        *("(null)", "[null]", "<null>", "<none>", "<nan>", "\\n"),  # SQL writes \N
        *("np.nan", "numpy.nan", "pd.na", "pd.nat"),
    )
)


def split_of(text: str) -> str:
    """Return the split that the name of a folder or file means, ``""`` if it means none.

    Case, blanks and punctuation do not count, nor does ``set`` or a year at the end: ``Test``,
    ``"test "``, ``TESTING``, ``test_set`` and ``test2017`` are the test set.
    """
    return _meaning(text, _SPLITS)


def split_of_cell(text: str) -> str:
    """Return the split that a cell of a column ``split`` means, ``""`` if it means none.

    As :func:`split_of`; ``pool`` are the crops outside the test set, which may train.
    """
    return _meaning(text, _SPLITS_OF_CELLS)


def splits_in(text: str) -> set[str]:
    """Return the splits whose words occur in the name of a folder.

    ``train_images``, ``02-test`` and ``trainA`` have such a word, ``trainer`` has none.
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", unicodedata.normalize("NFKC", text)).casefold()
    words = re.sub(r"[\W\d_]+", "-", words)
    return {split for word, split in _SPLITS.items() if f"-{word}-" in f"-{words}-"}


def _meaning(text: str, splits: dict[str, str]) -> str:
    word = unicodedata.normalize("NFKC", text).casefold()
    word = re.sub(r"[\W_]+", "-", word).strip("-")
    return splits.get(word) or splits.get(re.sub(r"-?(set|split|(19|20)\d\d)$", "", word), "")


def is_missing(text: str) -> bool:
    """Whether a text is the spelling of a missing value: empty, ``nan``, ``None``, ``<NA>``."""
    if not text.isascii():  # marks of byte order and zero width are not seen
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return text.strip().casefold() in _MISSING
