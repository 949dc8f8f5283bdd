"""Checkers of lesson 00."""
