"""How a block is put together: where its norms stand. A new way is a file here and a row in the table.

    parameters(config) -> the named tuple of the block's weights, declared (minillama.layers.declare): p, and grad
    block(op, config, p, x, shard, noise, site, cache=None) -> x of the next block (N, C), saved
    block_backward(op, config, p, grad, dx, shard, noise, site, saved) -> dx (N, C)

dx is the gradient of the residual stream, updated in place: of the block's output on entry, of its input on return.
saved is a named tuple with at least `attention`, what the attention layer saved, and `between`, the stream between the
two layers (N, C): whoever looks inside (minillama.analysis.trace) reads them.

A block may have an auxiliary loss, such as one that keeps experts equally busy. It is a number for each row, and counts
as often as the loss of that row does:

    loss = sum over rows with a target of weight_n loss_n + |weight_n| (sum over blocks of auxiliary_n)

So with the usual weights its mean over these rows is added, and micro-batches, shards and ranks, which cut rows only,
give the same sum. Of the weights that a preference loss gives, some are negative, hence the magnitude.
The row says has_auxiliary, `saved` has `auxiliary` (N,), with the block's own coefficient in it, and the backward gets
one more argument, dauxiliary (N,), which are the |weight_n|, or 0 for rows without a target:

    block_backward(op, config, p, grad, dx, shard, noise, site, saved, dauxiliary) -> dx (N, C)

It adds what follows from them to dx and to the parameters' gradients. A row's number may depend on other rows too, if
the backward knows it; what is computed then depends on how a batch is cut among workers. `Model.loss` and
`Model.losses`, by which models are compared, have no part of it.
"""

from collections.abc import Callable
from typing import NamedTuple

from .post import post_block, post_block_backward
from .pre import pre_block, pre_block_backward
from .weights import block_parameters


class Placement(NamedTuple):
    """A row of PLACEMENTS."""

    parameters: Callable
    block: Callable
    block_backward: Callable
    final_norm: bool  # whether the stream is still to be normalised after the last block
    has_auxiliary: bool = False  # whether the block has an auxiliary loss


PLACEMENTS = {
    "pre": Placement(block_parameters, pre_block, pre_block_backward, final_norm=True),
    "post": Placement(block_parameters, post_block, post_block_backward, final_norm=False),
}
