"""Checkers of lesson 04."""
