"""CVAT's format "CVAT for images 1.1" and its list of labels.

The format is documented at https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from collabteam.errors import first_line

ANNOTATIONS = "annotations.xml"
"""Name of the file with the annotations inside a CVAT archive."""

_DEEPEST = 32  # largest depth of XML elements; CVAT uses 8


class NotAnnotations(Exception):
    """A file is not CVAT's ``annotations.xml``; the message says why."""


@dataclass
class TaggedImage:
    """One image of ``annotations.xml``.

    Attributes:
        name: Its file.
        tags: The label of each of its tags; None for a tag without one.
        attributes: The attributes of its tags, by name.
        line: Where its entry ends.
    """

    name: str
    tags: list[str | None] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    line: int = 0


def read_annotations(chunks: Iterable[bytes]) -> Iterator[TaggedImage]:
    """Read the tags of all images while parsing.

    The content may be damaged or hostile: nothing that it declares is expanded.

    Args:
        chunks: The bytes of ``annotations.xml``.

    Raises:
        NotAnnotations: It is not such a file.
    """
    parser = expat.ParserCreate()
    above: list[str] = []
    done: list[TaggedImage] = []
    image, attribute = TaggedImage(""), ""
    images = 0

    def refuse(*declared: object) -> None:
        raise NotAnnotations("it declares a document type or entities, which CVAT never does")

    def start(element: str, attributes: dict[str, str]) -> None:
        nonlocal image, attribute, images
        if not above and element != "annotations":
            raise NotAnnotations(f"it begins with <{element[:40]}>, CVAT's with <annotations>")
        if len(above) > _DEEPEST:
            raise NotAnnotations("it is nested deeper than CVAT's")
        if above == ["annotations"] and element == "image":
            images += 1
            image = TaggedImage(attributes.get("name", ""))
        elif above == ["annotations", "image"] and element == "tag":
            image.tags.append(attributes.get("label"))
        elif above == ["annotations", "image", "tag"] and element == "attribute":
            attribute = attributes.get("name", "")
            image.attributes.setdefault(attribute, "")
        above.append(element)

    def text(content: str) -> None:
        if above == ["annotations", "image", "tag", "attribute"]:
            image.attributes[attribute] += content

    def end(element: str) -> None:
        above.pop()
        if above == ["annotations"] and element == "image":
            image.line = parser.CurrentLineNumber
            done.append(image)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)
            yield from done
            done.clear()
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the encoding raises the others
        raise NotAnnotations(f"it is broken XML ({first_line(error)})") from error
    if not images:
        raise NotAnnotations("it has no <image>: export it as 'CVAT for images 1.1'")
    yield from done


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
