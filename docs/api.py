"""`python docs/api.py` writes docs/API.md: the public names with their signatures and docstrings, as they are in the code."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lmcompress
from lmcompress import archive, integrations

TARGET = Path(__file__).with_name("API.md")
INTRODUCTION = """\
# The library

Made from the docstrings by `make docs`. A `Buffer` is bytes, bytearray or memoryview.
"""


def text(thing: Any) -> str:
    """A docstring's paragraphs, each in one line; nothing where it would be inherited."""
    paragraphs = inspect.cleandoc(thing.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(p.split()) for p in paragraphs)


def signature(name: str, thing: Any) -> str:
    found = inspect.signature(thing)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    shown = str(found.replace(parameters=parameters))
    return name + re.sub(r"(: |-> )'([^']*)'", r"\1\2", shown).removesuffix(" -> None")


def methods(cls: type) -> Iterator[str]:
    """A line for each method and property of its own."""
    for name, thing in vars(cls).items():
        if name.startswith("_") or not (isinstance(thing, (property, staticmethod)) or inspect.isfunction(thing)):
            continue
        shown = name if isinstance(thing, property) else signature(name, getattr(cls, name))
        yield f"- `{shown}`: {text(thing)}".rstrip(": ") + "\n"


def is_error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


def entry(name: str, thing: Any) -> Iterator[str]:
    if not inspect.isclass(thing):
        yield f"### {name}\n\n    {signature(name, thing)}\n\n{text(thing)}\n\n"
        return
    yield f"### class {name}\n\n"
    if is_dataclass(thing):
        fields = re.findall(r"^    \w+: .*\n", inspect.getsource(thing), re.MULTILINE)
        yield f"{text(thing)}\n\n{''.join(fields)}\n"
    elif is_error(thing):
        yield f"{text(thing)} A kind of {thing.__mro__[1].__name__}.\n\n"
    else:
        yield f"    {signature(name, thing)}\n\n{text(thing)} {text(thing.__init__)}".rstrip() + "\n\n"
    if lines := "".join(methods(thing)):
        yield lines + "\n"


def reference() -> str:
    """The whole page: functions, classes, errors; then the modules that are not imported with the package."""
    public = {name: getattr(lmcompress, name) for name in lmcompress.__all__}
    page = f"{INTRODUCTION}\n## lmcompress\n\n{text(lmcompress)}\n\n"
    for name in sorted(public, key=lambda name: (inspect.isclass(public[name]), is_error(public[name]), name)):
        page += "".join(entry(name, public[name]))
    for module in (archive, integrations):
        page += f"## {module.__name__}\n\n{text(module)}\n\n"
        for name, thing in vars(module).items():
            if inspect.isfunction(thing) and thing.__module__ == module.__name__ and not name.startswith("_"):
                page += "".join(entry(name, thing))
    return page.rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
