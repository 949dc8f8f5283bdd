"""How a block is put together: where its norms stand. A new way is a file here and a row in the table.

    block(op, config, p, x, shard, noise, site, cache=None) -> x of the next block (N, C), saved
    block_backward(op, config, p, grad, dx, shard, noise, site, saved) -> dx (N, C)
    block_inside(saved) -> what the attention layer saved, and the stream between the two layers (N, C)

dx is the gradient of the residual stream, updated in place: of the block's output on entry, of its input on return.
"""

from collections.abc import Callable
from typing import NamedTuple

from .post import post_block, post_block_backward, post_block_inside
from .pre import pre_block, pre_block_backward, pre_block_inside


class Placement(NamedTuple):
    """A row of PLACEMENTS."""

    block: Callable
    block_backward: Callable
    block_inside: Callable
    final_norm: bool  # whether the stream is still to be normalised after the last block


PLACEMENTS = {
    "pre": Placement(pre_block, pre_block_backward, pre_block_inside, final_norm=True),
    "post": Placement(post_block, post_block_backward, post_block_inside, final_norm=False),
}
