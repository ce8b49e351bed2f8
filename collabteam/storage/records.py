"""Records: JSON files that hold the result of a piece of work.

One pydantic model defines the schema, the validation and the JSON of a record. Its fields are
written in the order of declaration.

**Versions.** Every record holds the number of its schema. A new key has a default, which defines
the meaning of its absence in an older record. A change of a key's name or meaning raises the
number, and :meth:`Record.migrate` converts older content. So a newer version reads every older
record. An older version refuses a record with unknown keys, because it cannot know what it would
ignore.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from collabteam.errors import UserError, file_error
from collabteam.storage.files import parse_json, write_json

Count = Annotated[int, Field(strict=True, ge=0)]
"""Number of things, 0 or more."""
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
"""Fraction, 0 to 1."""
Text = StrictStr
Flag = StrictBool
Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][_A-Za-z0-9.-]{0,63}$")]
"""Name of a camera or a class."""
ClassName = Annotated[Name, Field(json_schema_extra={"not": {"enum": ["unknown", "unusable"]}})]
Time = Annotated[str, Field(strict=True, pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
"""UTC, ISO 8601, in whole seconds."""
Digest = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{8,}$")]
"""Hash in hexadecimal."""


class Part(BaseModel):
    """Part of a record; it is immutable, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Record(Part):
    """A versioned record in one JSON file; in memory it always has the current schema.

    A subclass raises ``SCHEMA`` when a key changes its name or its meaning, and then extends
    :meth:`migrate`.
    """

    SCHEMA: ClassVar[int] = 1

    @classmethod
    def migrate(cls, content: dict[str, Any], version: int) -> dict[str, Any]:
        """Convert the content of an older record to the current schema.

        Args:
            content: The content of the file, without the number of its schema.
            version: That number, below ``SCHEMA``.

        Returns:
            Content of the current schema.
        """
        return content

    @classmethod
    def read(cls, file: Path, remedy: str) -> Self:
        """Read a record of this or an older version.

        Args:
            file: The file.
            remedy: Advice for the user if it is damaged.

        Raises:
            UserError: The file cannot be read, is not such a record, or a newer version made it.
        """
        try:
            content = parse_json(file.read_bytes())
        except PermissionError as error:
            raise file_error(file, error, "read") from error
        except (OSError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise UserError(f"{file} is damaged ({problem}): {remedy}") from error
        return cls.from_json(content, file, remedy)

    @classmethod
    def from_json(cls, content: object, file: Path, remedy: str) -> Self:
        """Validate the content of a file, and convert it to the current schema.

        Args:
            content: Its parsed JSON.
            file: The file, for messages.
            remedy: Advice for the user if it is damaged.

        Raises:
            UserError: It is not such a record, or a newer version made it.
        """
        damaged = "{} is damaged ({}): {}"
        if not isinstance(content, dict):
            problem = f"expected an object, got {type(content).__name__}"
            raise UserError(damaged.format(file, problem, remedy))
        version = content.get("schema")
        if type(version) is not int or version < 1:
            said = "no schema" if version is None else f"schema {version!r:.40}"
            problem = f"{said}, expected a number up to {cls.SCHEMA}"
            raise UserError(damaged.format(file, problem, remedy))
        newer = "{} was made by a newer version of collabteam ({}): update collabteam"
        if version > cls.SCHEMA:
            problem = f"schema {version}, expected up to {cls.SCHEMA}"
            raise UserError(newer.format(file, problem))
        content = {key: value for key, value in content.items() if key != "schema"}
        if version < cls.SCHEMA:
            content = cls.migrate(content, version)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            unknown = [one for one in problems if one["type"] == "extra_forbidden"]
            # A missing or wrong key is damage, even if the record also holds unknown keys.
            if len(unknown) == len(problems):
                names = ", ".join(_place(one["loc"]) for one in unknown)
                raise UserError(newer.format(file, f"expected no key {names}")) from error
            raise UserError(damaged.format(file, _problem(problems), remedy)) from error

    def write(self, file: Path) -> None:
        """Write the record atomically, safe against a power cut."""
        write_json(file, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The record as plain data for ``json.dumps``, keys in their order on disk."""
        return {"schema": self.SCHEMA, **self.model_dump()}

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of what :meth:`write` writes."""
        schema = cls.model_json_schema(schema_generator=_WithoutTitles)
        number = {"description": "Version of this format.", "const": cls.SCHEMA}
        schema["properties"] = {"schema": number, **schema["properties"]}
        # Defaults serve only older records; a written record holds every key.
        for part in [schema, *schema.get("$defs", {}).values()]:
            if part.get("additionalProperties") is False:
                part["required"] = list(part["properties"])
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _WithoutTitles(GenerateJsonSchema):
    """JSON schema whose keys are not repeated as titles."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _place(path: tuple[int | str, ...]) -> str:
    return ".".join(map(str, path))


def _problem(problems: list[Any]) -> str:
    """Describe all missing keys, or else the first problem."""
    if missing := [_place(one["loc"]) for one in problems if one["type"] == "missing"]:
        return f"no {', '.join(missing)}"
    first = problems[0]
    expected = first["msg"].replace("Input should be", "expected").replace("Value error, ", "")
    got = repr(first["input"])
    got = got if len(got) <= 40 else f"{got[:37]}..."
    return f"{_place(first['loc'])}: {expected}, got {got}".removeprefix(": ")
