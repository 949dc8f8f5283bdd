"""Text from a model: sampling, filling gaps, conversations and their templates."""
