"""What can go wrong, and whose fault it is. Knows nothing else of the package."""


class LMCompressError(Exception):
    """Every failure that is not a programming error."""


class CorruptError(LMCompressError):
    """The data is damaged, or was never ours."""


class TruncatedError(CorruptError):
    """The data ends before it should."""


class UnsupportedError(LMCompressError):
    """The data is sound but needs something that this version does not have."""


class MissingModelError(LMCompressError):
    """The model that the data names is not at hand."""


class LimitError(LMCompressError):
    """Going on would take more memory or write more output than the caller allows."""
