"""What a model and an archive are made with: numbers only, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

HEAD_SIZE = 64
ROTARY = 32  # leading components of a head that carry the position
PERIOD = 4096  # positions after which every rotation repeats
# turns per PERIOD of each pair of rotary components: about 1 radian per token down to 1/80
TURNS = (652, 486, 363, 271, 202, 151, 112, 84, 63, 47, 35, 26, 19, 14, 11, 8)


class LayerConfig(NamedTuple):
    """The shape of a layer."""

    n_head: int  # 0: it has no attention
    d_ff: int  # 0: it has no MLP
    window: int  # positions that attention sees, its own included


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Every head has HEAD_SIZE components; all query heads share one key/value head. What is said of
    layers is one number for all of them or one for each."""

    vocab_size: int
    d_model: int
    n_layer: int
    n_head: int | tuple[int, ...]
    d_ff: int | tuple[int, ...]
    window: int | tuple[int, ...]

    def __post_init__(self) -> None:
        for name in LayerConfig._fields:
            if isinstance(value := getattr(self, name), list):  # as JSON has it
                object.__setattr__(self, name, tuple(value))

    @cached_property
    def layers(self) -> tuple[LayerConfig, ...]:
        """Raises ValueError where there is not one number for each layer."""
        columns = [getattr(self, name) for name in LayerConfig._fields]
        columns = [c if isinstance(c, tuple) else (c,) * self.n_layer for c in columns]
        return tuple(LayerConfig(*row) for _, *row in zip(range(self.n_layer), *columns, strict=True))

    @property
    def longest_window(self) -> int:
        return max(layer.window for layer in self.layers)


@dataclass(frozen=True)
class CodecConfig:
    """How blocks are coded; packed into an archive's header by `codec.pack`."""

    lane_unit: int = 1024  # a block of n such units, in bytes of content, has sqrt(n) lanes; a power of two
    mixer_bits: int = 22  # log2 of the bytes of the mixer's tables; 0: the network alone
    network: bool = True  # False: the model's vocabulary only, what the text itself teaches is all there is
    light: bool = False  # the mixer has fewer parts: faster
