"""Checkers of lesson 03."""
