"""Looking at a trained model: traces of a forward pass, perplexity, figures."""
