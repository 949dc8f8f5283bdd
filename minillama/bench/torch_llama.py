"""The same training step as a PyTorch user writes it: fused attention, fused AdamW, float32."""

import torch
from torch import nn
from torch.nn import functional as F

from ..ops.positions import rope_angles


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

    def forward(self, x, cos, sin):
        H, K, D = self.config.heads, self.config.kv_heads, self.config.head_dim
        qkv = self.w_qkv(self.attention_norm(x)).unflatten(-1, (-1, D)).transpose(1, 2)  # (B, H + 2 K, T, D)
        q, k, v = qkv.split((H, K, K), dim=1)

        def rotate(y):
            a, b = y.chunk(2, dim=-1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

        mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, enable_gqa=H != K)
        x = x + self.w_o(mixed.transpose(1, 2).flatten(2))
        gate, up = self.w_gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.w_down(F.silu(gate) * up)


class TorchLlama(nn.Module):
    """The decoder of `minillama.model` in PyTorch's modules."""

    def __init__(self, config):
        super().__init__()
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


def torch_step(config, ids, targets, threads):
    """A function that makes one step of training: clipping at 1, AdamW with decay 0.1 on matrices; returns the loss."""
    torch.set_num_threads(threads)
    model = TorchLlama(config)
    ids, targets = torch.tensor(ids), torch.tensor(targets)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)

    def step():
        loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step
