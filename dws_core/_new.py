"""`python -m dws_core new`: write the skeleton of a plugin package, with its conformance tests.

The files of the skeletons are in `dws_core/_templates`. `common` is part of every skeleton, and each kind adds its own
folder. Templates are files of a package for the name `acme`. A skeleton has another name in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from dws_core._errors import ConfigurationError
from dws_core._plugins.registry import PluginRegistry

MAX_NAME: Final = 30
"""Maximum length of a name. Lines of the skeletons would become too long with a longer one."""

_SUFFIX: Final = ".tmpl"
_WORD: Final = re.compile("dws_acme|dws-acme|Acme|acme|KIND")
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of plugin.

    Attributes:
        label: Name of the kind in texts.
        row: Name of the kind in `Row.kind` of the plugin registry.
        folders: Folders of templates. Later folders replace files of earlier ones.
    """

    label: str
    row: str
    folders: tuple[str, ...]


KINDS: Final = {
    "broker": Kind(label="broker", row="scheme", folders=("common", "broker")),
    "wire": Kind(label="broker", row="scheme", folders=("common", "broker", "wire")),
    "codec": Kind(label="codec", row="codec", folders=("common", "codec")),
    "authenticator": Kind(label="authenticator", row="authenticator", folders=("common", "authenticator")),
    "matcher": Kind(label="topic matcher", row="topic matcher", folders=("common", "matcher")),
}
"""The kinds of plugins, by the name on the command line. There, `wire` is `broker NAME --wire`."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a plugin package, all derived from one.

    Attributes:
        name: Scheme or name by which applications choose the plugin, and name of its entry point.
    """

    name: str

    @property
    def distribution(self) -> str:
        """Name of the distribution, and of its folder."""
        return f"dws-{self.name}"

    @property
    def package(self) -> str:
        """Name of the Python package."""
        return f"dws_{self.name.replace('-', '_')}"

    @property
    def class_prefix(self) -> str:
        """First part of the names of classes."""
        return "".join(part.capitalize() for part in self.name.split("-"))


def read_name(text: str) -> Names:
    """Read the name of a plugin. It is normalized as in PEP 503, and a leading `dws-` is removed.

    Raises:
        ConfigurationError: The name is malformed or too long.
    """
    name = re.sub(r"[-_.]+", "-", text).lower().removeprefix("dws-")
    if not text.isascii() or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"plugin name {text!r} is invalid.",
            fix="use letters, digits and single hyphens, with a letter first, for example my-codec",
        )
    if len(name) > MAX_NAME:
        raise ConfigurationError(
            f"plugin name {text!r} has {len(name)} characters.", fix=f"use at most {MAX_NAME} characters"
        )
    return Names(name)


def skeleton(kind: str, names: Names) -> dict[str, str]:
    """Return the text of each file of a skeleton, by its path in the package folder."""
    words = {
        "dws_acme": names.package,
        "dws-acme": names.distribution,
        "Acme": names.class_prefix,
        "acme": names.name,
        "KIND": KINDS[kind].label,
    }

    def fill(text: str) -> str:
        return _WORD.sub(lambda found: words[found[0]], text)

    filled: dict[str, str] = {}
    for folder in KINDS[kind].folders:
        for path, text in _templates(files("dws_core") / "_templates" / folder):
            filled[fill(path)] = fill(text)
    return dict(sorted(filled.items()))


def write_skeleton(kind: str, name: str, into: Path, registry: PluginRegistry) -> Path:
    """Write a skeleton into a new folder, and return the folder.

    Args:
        kind: One of `KINDS`.
        name: Name of the plugin.
        into: Existing folder, in which the folder of the package is created.
        registry: Registry of the installed plugins. Their names are refused.

    Raises:
        ConfigurationError: The name is invalid or taken, or the folder cannot be created.
    """
    names = read_name(name)
    _check_free(kind, names, registry)
    folder = into / names.distribution
    if not into.is_dir():
        raise ConfigurationError(f"{str(into)!r} is not a folder.", fix="create it, or pass another folder to --into")
    try:
        folder.mkdir()
        for path, text in skeleton(kind, names).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8", newline="\n")
    except FileExistsError as error:
        raise ConfigurationError(
            f"{str(folder)!r} exists already. Nothing was written.", fix="choose another name, or pass --into FOLDER"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{str(folder)!r} could not be written: {error}.", fix="pass a writable folder to --into"
        ) from error
    return folder


def next_steps(folder: Path) -> str:
    """Return the commands that install a skeleton and run its tests."""
    return f'cd {folder}\npython -m pip install -e ".[dev]"\npython -m pytest'


def _check_free(kind: str, names: Names, registry: PluginRegistry) -> None:
    fix = "choose another name"
    for row in registry.rows():
        if row.kind == KINDS[kind].row and names.name in row.names:
            raise ConfigurationError(f"{row.kind} {names.name!r} is offered by {row.plugin} already.", fix=fix)
    try:
        installed = version(names.distribution)
    except PackageNotFoundError:
        return
    raise ConfigurationError(f"the distribution {names.distribution} {installed} is installed already.", fix=fix)


def _templates(folder: Traversable, below: str = "") -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, f"{below}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield below + entry.name.removesuffix(_SUFFIX), entry.read_text(encoding="utf-8")
