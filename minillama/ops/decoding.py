"""A token of one sequence: the whole network for a single position, with what came before in the cache."""

import numpy as np

from .attention import attention
from .embedding import embedding
from .feedforward.swiglu import swiglu
from .linear import linear
from .norms.rmsnorm import rmsnorm
from .positions.rope import rope


def decode(config, p, weights, token, rotation, cache, workers):
    """The logits (V,) of the token that follows `token`; its keys and values are written to the cache

    p holds the weights by place (minillama.parameters.views); weights (minillama.weights) has them as they lie in
    memory, for a kernel, and is not needed here, and neither are workers; rotation is cos and sin of every position of
    the context, (context, D/2); cache is a KVCache for one sequence, whose length is the position of the token and is
    left as it is. The same as the forward of minillama.model, with every shape spelled out.
    """
    H, K, D = config.heads, config.kv_heads, config.head_dim
    cos, sin = (table[cache.length, None] for table in rotation)  # (1, D/2)
    x = embedding(np.array([token]), p.embedding.token)  # (1, C)
    for i, block in enumerate(p.blocks):
        h, _ = rmsnorm(x, block.attention_norm.weight, config.norm_eps)
        heads = linear(h, *block.attention.qkv).reshape(1, 1, H + 2 * K, D)
        q, k, v = heads[:, :, :H], heads[:, :, H : H + K], heads[:, :, H + K :]
        rope(q, cos, sin, config.rope_layout)
        rope(k, cos, sin, config.rope_layout)
        mixed, _ = attention(q, *cache.layer(i).append(k, v))  # (1, 1, H, D)
        x = x + linear(mixed.reshape(1, H * D), *block.attention.o)
        h, _ = rmsnorm(x, block.ffn_norm.weight, config.norm_eps)
        x = x + linear(swiglu(linear(h, *block.feed_forward.inner)), *block.feed_forward.down)
    h, _ = rmsnorm(x, p.final_norm.weight, config.norm_eps)
    return linear(h, *p.output)[0]
