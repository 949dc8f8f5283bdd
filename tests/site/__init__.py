"""Tests of the course's web site; they need requirements-site.txt and Chromium."""
