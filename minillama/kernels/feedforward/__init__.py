"""Kernels of the activations."""
