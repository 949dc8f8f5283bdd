"""Kernels of the positions."""
