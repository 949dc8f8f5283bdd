"""Tests of the course's web site; they need the extra `site` and Chromium."""
