"""The context mixer that learns while coding: `reference` is its specification, `native` the same, fast.
docs/MIXER.md describes it."""
