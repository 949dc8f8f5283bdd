"""How a model is trained: settings, the optimizer, objectives, a trainer, and a run with its folder."""
