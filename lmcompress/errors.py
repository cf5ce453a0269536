"""What can go wrong, and whose fault it is. Knows nothing else.

A caller's mistake (a level that does not exist, a closed file) is a ValueError or TypeError, as everywhere in Python, and
the system's refusals are OSError; everything that an archive or a model file can do wrong is an LMCompressError.
"""

from __future__ import annotations

TOO_LONG = "a block's text is longer than its size allows"


class LMCompressError(Exception):
    """The archive, or the model it needs, cannot be used."""


class CorruptError(LMCompressError):
    """The bytes are not what was written: damage, or not an archive at all."""


class TruncatedError(CorruptError):
    """The bytes end too early; what there is may be good."""


class UnsupportedError(LMCompressError):
    """A sound archive or model that this version cannot read; the message names what is needed."""


class MissingModelError(LMCompressError):
    """The model that the archive was made with, or that was asked for, is not here."""


class LimitError(LMCompressError):
    """Reading on would take more memory or give more output than the caller allows."""
