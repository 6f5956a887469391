"""The names of the package: which objects there are, which are public, and what a reference means."""

from __future__ import annotations

import re
from collections.abc import Iterator

import griffe

from . import ROOT

REFERENCES = re.compile(r"\[`~?([\w.]+)`\]")


class NameIndex:
    """
    Every object of a package by its path, aliases left out.

    Args:
        package (`griffe.Module`): with its submodules.
    """

    def __init__(self, package: griffe.Module) -> None:
        self.package = package
        self.objects: dict[str, griffe.Object] = {one.path: one for one in _walk(package)}

    def find(self, name: str, within: griffe.Object | None = None) -> str | None:
        """
        The path of what a reference names.

        Looked for are the path itself, a name that `within`, its class or its modules know, and a name that only one
        object has.

        Args:
            name (`str`): such as `SageTrainer`, `SageTrainer.train` or `sage_hf.data.DataError`.
            within (`griffe.Object`, *optional*): whose docstring it stands in.
        """
        if name in self.objects:
            return self._not_its_module(name)
        for scope in _scopes(within):
            if f"{scope.path}.{name}" in self.objects:
                return f"{scope.path}.{name}"
            if (path := self._member(scope, name)) is not None:
                return path
        if name.startswith(f"{self.package.name}."):
            # A public path such as sage_hf.data.DataError, which sage_hf.data takes from a module of its own.
            if (path := self._member(self.package, name.removeprefix(f"{self.package.name}."))) is not None:
                return path
            parts = name.split(".")
            first = next((i for i, part in enumerate(parts) if part[0].isupper()), len(parts) - 1)
            prefix, ending = ".".join(parts[:first]) + ".", "." + ".".join(parts[first:])
            found = self._only([path for path in self.objects if path.startswith(prefix) and path.endswith(ending)])
        else:
            found = self._only([path for path in self.objects if path.endswith(f".{name}")])
        owner = name.rpartition(".")[0]
        # What a class has from another class is described there.
        return self.find(owner, within) if found is None and owner.rpartition(".")[2][:1].isupper() else found

    def _member(self, scope: griffe.Object, name: str) -> str | None:
        """What a dotted name is in a module: of its own, imported, or of a package inside it."""
        one: griffe.Object | griffe.Alias = scope
        for part in name.split("."):
            if not isinstance(one, griffe.Object) or part not in one.members:
                return None
            one = one.members[part]
        return self._target(one)

    def _not_its_module(self, path: str) -> str:
        """A function has the name of its module now and then, and is what is meant then."""
        inner = f"{path}.{path.rpartition('.')[2]}"
        return inner if isinstance(self.objects[path], griffe.Module) and inner in self.objects else path

    def _only(self, paths: list[str]) -> str | None:
        # A member of the same name elsewhere is no candidate beside what a module defines.
        for kinds in ((griffe.Class, griffe.Function), (griffe.Object,)):
            chosen = [
                path
                for path in paths
                if isinstance(self.objects[path], kinds) and isinstance(self.objects[path].parent, griffe.Module)
            ]
            if len(chosen) == 1:
                return chosen[0]
        return paths[0] if len(paths) == 1 else None

    def exported(self) -> dict[str, str]:
        """What packages list in `__all__`: the path of the object, and the shortest path to import it by."""
        found: dict[str, str] = {}
        modules = [one for one in self.objects.values() if isinstance(one, griffe.Module) and one.exports]
        for module in sorted(modules, key=lambda one: one.path.count(".")):
            for export in module.exports or []:
                member = module.members.get(str(export))
                path = self._target(member) if member is not None else None
                if path is not None:
                    found.setdefault(path, f"{module.path}.{export}")
        return found

    def _target(self, member: griffe.Object | griffe.Alias) -> str | None:
        seen = set()
        while isinstance(member, griffe.Alias):
            path = member.target_path
            if path in seen:
                return None
            seen.add(path)
            if path in self.objects:
                return path
            module, _, name = path.rpartition(".")
            if module not in self.objects or name not in self.objects[module].members:
                return None
            member = self.objects[module].members[name]
        return self._not_its_module(member.path)

    def documented(self) -> dict[str, str]:
        """
        What the API reference describes: everything exported, and everything that their docstrings refer to.

        Returns:
            `dict[str, str]`: path of the object to the shortest path to import it by.
        """
        found = {path: public for path, public in self.exported().items() if self.objects[path].docstring}
        waiting = list(found)
        while waiting:
            for one in _walk(self.objects[waiting.pop()]):
                for name in REFERENCES.findall(one.docstring.value if one.docstring else ""):
                    path = self.find(name, one)
                    while path is not None and not isinstance(self.objects[path].parent, griffe.Module):
                        path = self.objects[path].parent.path  # type: ignore[union-attr]
                    if path is not None and path not in found and self.objects[path].docstring:
                        found[path] = path
                        waiting.append(path)
        inside = [path for path in found if any(path.startswith(f"{other}.") for other in found)]
        return {path: public for path, public in found.items() if path not in inside}


def load_package(extensions: griffe.Extensions | None = None) -> griffe.Module:
    """The package as griffe reads it from its sources."""
    package = griffe.load("sage_hf", search_paths=[ROOT], extensions=extensions)
    assert isinstance(package, griffe.Module)
    return package


def _scopes(one: griffe.Object | None) -> Iterator[griffe.Object]:
    """An object, and what it stands in, from the inside out."""
    while one is not None:
        yield one
        parent = one.parent
        one = parent if isinstance(parent, griffe.Object) else None


def _walk(one: griffe.Object) -> Iterator[griffe.Object]:
    yield one
    for member in one.members.values():
        if isinstance(member, griffe.Object):
            yield from _walk(member)
