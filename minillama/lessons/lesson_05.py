"""Checkers of lesson 05."""
