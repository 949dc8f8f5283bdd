"""Checkers of lesson 06."""
