"""How a model is trained: settings, optimizers, schedules, objectives, a trainer, and a run with its folder."""
