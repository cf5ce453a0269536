# The compiled part; each C file documents its functions.
from typing import Any

def __getattr__(name: str) -> Any: ...
