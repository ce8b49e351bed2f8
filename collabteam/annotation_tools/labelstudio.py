"""Label Studio's JSON of tasks, and its labelling interface.

The format is documented at https://labelstud.io/guide/tasks and
https://labelstud.io/guide/predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

IMAGE, CHOICE = "image", "label"
"""Names of the interface's two tags; results refer to them."""


def picture_url(folder: str, file: str) -> str:
    """The address of a picture in a folder below Label Studio's document root."""
    return f"/data/local-files/?d={quote(folder)}/{file}"


def choice_result(crop_id: str, label: str) -> dict[str, Any]:
    """One choice, as annotations and predictions hold it."""
    return {
        "id": crop_id,
        "from_name": CHOICE,
        "to_name": IMAGE,
        "type": "choices",
        "value": {"choices": [label]},
    }


def interface(labels: Sequence[str]) -> str:
    """The labelling interface: a picture and one choice."""
    choices = "".join(f"    <Choice value={quoteattr(label)}/>\n" for label in labels)
    return (
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <Choices name="{CHOICE}" toName="{IMAGE}" choice="single" required="true" '
        f'showInline="true">\n{choices}  </Choices>\n</View>\n'
    )
