"""The integer Transformer of docs/MODEL.md: the same integers from every engine."""
