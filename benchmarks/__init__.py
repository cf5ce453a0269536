"""Corpora x codecs -> coded bytes, speed, memory; tables and plots. See `python -m benchmarks --help`."""
