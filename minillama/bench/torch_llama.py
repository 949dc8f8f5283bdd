"""The same work as a PyTorch user writes it: fused attention, fused AdamW, a preallocated cache; float32."""

from ..config import Config
from ..messages import needs
from ..ops.positions.rope import rope_angles
from .ours import batch
from .shapes import Shape

with needs("parity", "the comparison"):
    import torch
    from torch import nn
    from torch.nn import functional as F


class Block(nn.Module):
    """x + attention(rmsnorm(x)), then the same with the SwiGLU feed-forward; rotate-half RoPE."""

    def __init__(self, config):
        super().__init__()
        C, D = config.dim, config.head_dim
        self.config = config
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(C, config.norm_eps) for _ in range(2))
        self.w_qkv = nn.Linear(C, (config.heads + 2 * config.kv_heads) * D, bias=False)
        self.w_o = nn.Linear(C, C, bias=False)
        self.w_gate_up = nn.Linear(C, 2 * config.ffn, bias=False)
        self.w_down = nn.Linear(config.ffn, C, bias=False)

    def forward(self, x, cos, sin, cache=None, past=0):
        H, K, D = self.config.heads, self.config.kv_heads, self.config.head_dim
        qkv = self.w_qkv(self.attention_norm(x)).unflatten(-1, (-1, D)).transpose(1, 2)  # (B, H + 2 K, T, D)
        q, k, v = qkv.split((H, K, K), dim=1)

        def rotate(y):
            a, b = y.chunk(2, dim=-1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

        q, k = rotate(q), rotate(k)
        if cache is not None:
            end = past + x.shape[1]
            cache[0][:, :, past:end], cache[1][:, :, past:end] = k, v
            k, v = cache[0][:, :, :end], cache[1][:, :, :end]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=past == 0, enable_gqa=H != K)
        x = x + self.w_o(mixed.transpose(1, 2).flatten(2))
        gate, up = self.w_gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.w_down(F.silu(gate) * up)


class TorchLlama(nn.Module):
    """The decoder of `minillama.model` in PyTorch's modules."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tied:
            self.output.weight = self.embedding.weight
        angles = rope_angles(range(config.context), config.head_dim, config.rope_theta)
        self.cos, self.sin = map(torch.from_numpy, angles)

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.output(self.final_norm(x))

    def new_cache(self, batch_size=1):
        """Keys and values of every layer: [(2, B, K, context, D)]."""
        config = self.config
        shape = (2, batch_size, config.kv_heads, config.context, config.head_dim)
        return [torch.empty(shape) for _ in self.blocks]

    @torch.no_grad()
    def next_logits(self, ids, cache, past):
        """ids (B, T) that follow `past` positions of the cache -> logits (B, V) of the token after the last one

        T is 1 unless past is 0: the mask of SDPA's is_causal begins at the first key.
        """
        x, end = self.embedding(ids), past + ids.shape[1]
        for block, keys_values in zip(self.blocks, cache, strict=True):
            x = block(x, self.cos[past:end], self.sin[past:end], keys_values, past)
        return self.output(self.final_norm(x[:, -1]))


def warm_up():
    """One step of a tiny model: PyTorch's libraries and threads are there."""
    training(Shape(Config(16, dim=16, layers=1, heads=2, ffn=16, context=8), 2), 1)["step"]()


def training(shape, threads, compiled=False):
    """One step: gradients of a batch, clipping at 1, AdamW with decay 0.1 on matrices. Returns the loss."""
    torch.set_num_threads(threads)
    model = TorchLlama(shape.config)
    ids, targets = map(torch.tensor, batch(shape))
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)

    def mean_loss(ids, targets):
        return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())

    if compiled:
        mean_loss = torch.compile(mean_loss)

    def step():
        loss = mean_loss(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return {"step": step}


def prefill(shape, threads, compiled=False):
    """Read a prompt into a cache; the logits of its last position."""
    torch.set_num_threads(threads)
    model = TorchLlama(shape.config)
    ids, cache = torch.tensor(batch(shape)[0][:1, : shape.prompt]), model.new_cache()
    wrap = torch.compile if compiled else torch.inference_mode()  # inductor does not take inference mode's tensors
    next_logits = wrap(model.next_logits)
    return {"step": lambda: next_logits(ids, cache, 0)}


def decoding(shape, threads):
    """Sample from a prompt of one token, a token at a time."""
    torch.set_num_threads(threads)
    model = TorchLlama(shape.config)
    cache = model.new_cache()

    @torch.inference_mode()
    def step():
        token = torch.ones((1, 1), dtype=torch.int64)
        for past in range(shape.decoded):
            token = torch.multinomial(F.softmax(model.next_logits(token, cache, past), dim=-1), 1)
            token.item()

    return {"step": step}


def attention(config, batch_size, T, threads):
    """F.scaled_dot_product_attention forward and backward, on q, k, v as views of one array, as in the model."""
    torch.set_num_threads(threads)
    H, K, D = config.heads, config.kv_heads, config.head_dim
    qkv = torch.randn(batch_size, T, H + 2 * K, D).transpose(1, 2)
    q, k, v = (part.detach().requires_grad_() for part in qkv.split((H, K, K), dim=1))
    do = torch.randn(batch_size, T, H, D).transpose(1, 2)
    o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != K)

    @torch.no_grad()
    def forward():
        F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != K)

    def backward():
        torch.autograd.grad(o, (q, k, v), do, retain_graph=True)

    return {"forward": forward, "backward": backward}
