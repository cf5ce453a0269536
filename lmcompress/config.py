"""What a model and an archive are made with: numbers only, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_SIZE = 64
ROTARY = 32  # leading components of a head that carry the position
PERIOD = 4096  # positions after which every rotation repeats
# turns per PERIOD of each pair of rotary components: about 1 radian per token down to 1/80
TURNS = (652, 486, 363, 271, 202, 151, 112, 84, 63, 47, 35, 26, 19, 14, 11, 8)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Every head has HEAD_SIZE components; all query heads share one key/value head."""

    vocab_size: int
    d_model: int
    n_layer: int
    n_head: int
    d_ff: int
    window: int  # positions that attention sees, its own included


@dataclass(frozen=True)
class CodecConfig:
    """How blocks are coded; packed into an archive's header by `codec.pack`."""

    lane_unit: int = 1024  # a block of n such units, in bytes of content, has sqrt(n) lanes; a power of two
    mixer_bits: int = 22  # log2 of the bytes of the mixer's tables; 0: the network alone
    network: bool = True  # False: the model's vocabulary only, what the text itself teaches is all there is
    light: bool = False  # the mixer has fewer parts: faster
