"""Weights that take fewer bytes than they are computed with."""
