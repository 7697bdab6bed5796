"""Compression methods, one room each, found by name: a new method is one new file in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from multipress.errors import SpecError
from multipress.methods.base import Context, Method, Stage, Step

__all__ = ["Context", "Method", "Stage", "Step", "build_method", "get_card", "get_method", "list_methods"]


@cache
def _registry() -> dict[str, tuple[type[Method], str]]:
    """Each method's class and card by name: one method a room, a room being a file or a folder here."""
    found: dict[str, tuple[type[Method], str]] = {}
    for room in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{room.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Method) and "name" in vars(value):
                found[value.name] = (value, (module.__doc__ or "").strip())
    return dict(sorted(found.items(), key=lambda item: (item[1][0].stage, item[0])))


def list_methods() -> list[str]:
    """Names of all methods, in the order in which they are prepared."""
    return list(_registry())


def get_method(name: str) -> type[Method]:
    """The class of a method; raises `SpecError` that names the known ones."""
    try:
        return _registry()[name][0]
    except KeyError:
        raise SpecError(f"No method {name!r}; there are: {', '.join(list_methods())}.") from None


def build_method(name: str, settings: dict[str, Any]) -> Method:
    """A method by name with its settings; raises `SpecError` or `SettingError`."""
    return get_method(name).from_settings(settings)


def get_card(name: str) -> str:
    """The card of a method: what it does, when to use it, settings, cost, with other methods, limits, source."""
    get_method(name)
    return _registry()[name][1]
