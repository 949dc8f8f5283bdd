"""Looking at a model: traces of a forward pass, a layer alone, perplexity, figures."""
