"""The gradients that workers add to: a flat store for each of them, or one that they share, and the sum."""

from ..parameters import views
from ..runtime.memory import Store


class Gradients:
    """Stores of gradients with their views, made when they are first needed.

    Workers that have whole sequences add to a store each, and never wait. Workers that share sequences, and so meet in
    every layer, also share the first store: its matrices in turn, while each has vectors of its own. A batch may come
    in parts, one after the other:

        gradients.begin()
        for each part:    gradients.open(shards);    worker i adds to gradients.of(i, shards[i]);    gradients.close()
        gradients.sum(workers)

    stores, views: those of each worker, in the order of their numbers.
    """

    def __init__(self, config, weights):
        self._config, self._weights = config, weights
        self.stores, self.views, self._vectors = [], [], []
        self._used = self._count = 0  # stores that hold something of this batch, and those that this part is added to

    def begin(self):
        """A new batch: what the stores hold is of no use any more."""
        self._used = 0

    def open(self, shards):
        """The workers of these shards will add to the gradients."""
        shared = shards[0].shares_gradients
        self._count = 1 if shared else len(shards)
        shapes, dtype = self._weights.parameters.shapes, self._weights.dtype
        while len(self.stores) < self._count:
            store = Store(shapes, dtype)
            self.stores.append(store)
            self.views.append(views(self._config, store))
        vectors = {name: shape for name, shape in shapes.items() if len(shape) == 1} if shared else {}
        self._vectors = [Store(vectors, dtype) for _ in shards] if shared else []

    def of(self, i, shard):
        """What worker i adds to: to be asked for on its thread, as a store that is new to the batch is cleared then."""
        if self._used <= i < self._count:
            self.stores[i].flat.fill(0)
        if not self._vectors:
            return self.views[i]
        store = self.stores[0]
        return views(self._config, store, lambda names: shard.shared(store.fused(names), names), self._vectors[i])

    def close(self):
        """All workers have added what they have."""
        for own in self._vectors:
            self.stores[0].vectors[:] += own.flat
        self._used, self._vectors = max(self._used, self._count), []

    def sum(self, workers):
        """The Store of the whole batch: the first one, to which the others are added."""
        total, *others = self.stores[: self._used]

        def add_up(_, part):
            for other in others:
                total.flat[part] += other.flat[part]

        if others:
            workers.run(add_up, workers.split(len(total.flat)))
        return total
