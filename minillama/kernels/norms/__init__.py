"""Kernels of the norms: each pair, and the same fused with a model's bias and the sum with the residual stream's gradient
(minillama.ops.norms.Norm.with_bias): each row is read once."""
