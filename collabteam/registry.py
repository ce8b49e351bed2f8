"""Registries, which find implementations of a seam by name.

A seam is an abstract base class and a package. Each module of the package is one implementation and
gives it its name; importing the package must be cheap, because names are listed without importing
the modules. Other distributions add implementations by an entry point in the seam's group
or by naming a class as ``package.module:Class`` in the settings.
"""

from __future__ import annotations

import difflib
import inspect
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from collabteam.errors import UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """The implementations of one seam.

    Args:
        kind: The seam's name in messages, such as ``learner``. Its entry-point group is
            ``collabteam.<kind>`` with ``_`` for spaces.
        base: The abstract base class, as ``package.module:Class``; it is imported with the first
            implementation.
        package: The package whose public modules are the built-in implementations.
    """

    def __init__(self, kind: str, base: str, package: str) -> None:
        self.kind, self._base, self.package = kind, base, package
        self.group = f"collabteam.{kind.replace(' ', '_')}"

    @cached_property
    def _built_in(self) -> list[str]:
        paths = import_module(self.package).__path__
        return sorted(found.name for found in iter_modules(paths) if found.name[0] != "_")

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        # This import takes 20 ms, and most commands never list the names.
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """Names of all installed implementations, built-in ones first."""
        return [*self._built_in, *sorted(set(self._entry_points) - set(self._built_in))]

    def check(self, name: str, setting: str) -> None:
        """Raise unless a name refers to an implementation; nothing is imported.

        Args:
            name: A registered name, or ``package.module:Class``.
            setting: The setting that holds the name, for the message.

        Raises:
            UserError: There is no such implementation; lists the nearest names.
        """
        if ":" in name or name in self.names():
            return
        near = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.5) or self.names()
        raise UserError(
            f"{setting}={name}: no such {self.kind}; expected {', '.join(near)}, or "
            "package.module:Class of your own"
        )

    def load(self, name: str) -> type[T]:
        """Import an implementation.

        Args:
            name: A registered name, or ``package.module:Class``.

        Returns:
            The class.

        Raises:
            UserError: The module or the class is missing, or is not an implementation of the seam.
        """
        if name in self._built_in:
            return self._only_class(f"{self.package}.{name}")
        path = name
        if ":" not in name:
            if name not in self._entry_points:
                self.check(name, self.kind.replace(" ", "_"))
            path = self._entry_points[name].value
        module_name, _, class_name = path.partition(":")
        try:
            found = getattr(import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{self.kind} {name}: expected a class at {path}, got {error}: install the package "
                "that holds it, or correct the path"
            ) from error
        if not (inspect.isclass(found) and issubclass(found, self._base_class)):
            raise UserError(f"{self.kind} {name}: {path} is not a subclass of {self._base}")
        return cast(type[T], found)

    def name_of(self, implementation: type[T]) -> str:
        """Return the name under which :meth:`load` finds a class."""
        path = f"{implementation.__module__}:{implementation.__qualname__}"
        package, _, module = implementation.__module__.rpartition(".")
        if package == self.package and module in self._built_in:
            return module
        points = self._entry_points.items()
        return next((name for name, point in points if point.value == path), path)

    @cached_property
    def _base_class(self) -> type:
        module, _, name = self._base.partition(":")
        found: type = getattr(import_module(module), name)
        return found

    def _only_class(self, module_name: str) -> type[T]:
        module = import_module(module_name)
        found = [
            member
            for _, member in inspect.getmembers(module, inspect.isclass)
            if member.__module__ == module.__name__
            and issubclass(member, self._base_class)
            and not inspect.isabstract(member)
        ]
        if len(found) != 1:
            raise TypeError(f"{module_name}: expected one {self.kind}, got {len(found)}")
        return cast(type[T], found[0])
