"""Options that have no valid value: they are told of, and must not cost all the others."""

from __future__ import annotations

from traitlets import HasTraits, TraitError
from traitlets.config import Config
from traitlets.config.loader import DeferredConfig, LazyConfigValue


def invalid(owner: HasTraits, section: Config) -> dict[str, str]:
    """Return which options of a section have no valid value, each with what is wrong with it."""
    found = {}
    for name, trait in owner.traits(config=True).items():
        value = section.get(name)
        if name not in section or isinstance(value, LazyConfigValue):
            continue
        try:
            if isinstance(value, DeferredConfig):  # a text, from the command line
                value = value.get_value(trait)
            trait._validate(owner, value)
        except (TraitError, ValueError) as error:
            found[name] = str(error).rstrip(".")
    return found


def unknown(owner: HasTraits, section: Config) -> list[str]:
    """Return what a section has that is no option."""
    return [name for name in section if name not in owner.traits(config=True)]
