"""Kernels of the norms: each pair, and the same with a model's bias and the sum with the stream's gradient in one
pass over memory (minillama.ops.norms.Norm.with_bias)."""
