"""CVAT's format "CVAT for images 1.1" and its list of labels.

The format is documented at https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from xml.sax.saxutils import escape

ANNOTATIONS = "annotations.xml"
"""Name of the file with the annotations inside a CVAT archive."""


def annotations_head(
    task: str, labels: Sequence[str], size: int, attributes: Sequence[str] = ()
) -> str:
    """The part of ``annotations.xml`` before the first image.

    Args:
        task: Name of the task.
        labels: Names of the tags.
        size: Number of images.
        attributes: Names of the text attributes of every tag.
    """
    declared = "".join(
        f"<attribute><name>{name}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for name in attributes
    )
    tags = "".join(
        f"        <label><name>{escape(label)}</name><type>tag</type>"
        f"<attributes>{declared}</attributes></label>\n"
        for label in labels
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta>\n    <task>\n      <name>{escape(task)}</name>\n      <size>{size}</size>\n"
        f"      <mode>annotation</mode>\n      <labels>\n{tags}      </labels>\n"
        "    </task>\n  </meta>\n"
    )


def labels_json(labels: Sequence[str], attributes: Sequence[str] = ()) -> str:
    """The same labels as JSON, to paste into the raw constructor of a CVAT project."""
    declared = [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for name in attributes
    ]
    content = [{"name": label, "type": "tag", "attributes": declared} for label in labels]
    return json.dumps(content, indent=2) + "\n"


def xml_text(value: object) -> str:
    """Escape a value as XML text; None is empty, and U+FFFD replaces characters XML cannot hold."""
    text = "" if value is None else str(value)
    text = "".join(letter if _is_xml(ord(letter)) else "\ufffd" for letter in text)
    return escape(text, {"\r": "&#13;"})


def _is_xml(code: int) -> bool:
    """Whether XML 1.0 allows this character of a Python string."""
    if code < 32:
        return code in (9, 10, 13)
    return code not in (0xFFFE, 0xFFFF) and not 0xD800 <= code <= 0xDFFF
