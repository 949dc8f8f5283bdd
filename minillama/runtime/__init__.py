"""Where arrays live and who computes: the flat store, the arena of a step, the cache; workers and their shards."""
