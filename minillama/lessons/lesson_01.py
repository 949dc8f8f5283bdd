"""Checkers of lesson 01."""
