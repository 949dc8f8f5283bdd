"""What all optimizers share: the weights that they change, their state, and the share of the work of each worker."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ... import backend
from ...runtime.memory import Store, aligned_zeros
from ...runtime.workers import Workers


class Optimizer:
    """An optimizer of a flat Store of parameters, or of any mapping {name: array}, whose arrays it changes in place

        optimizer = AdamW(parameters)
        optimizer.step(gradients, rate)

    Weight decay applies to matrices only, arrays of two axes and more. `steps` counts the steps; `state` is {name:
    array} of what is kept between them, one number for each parameter under each of state_names, in the order of the
    flat buffer or of the mapping. Weights, state and steps are all that it takes to go on where another left off.

    An optimizer has, besides `__init__`:

        state_names          what its state is called
        settings             the fields of minillama.training.trainer.Settings that it reads
        with_settings(parameters, settings) -> optimizer
        update(op, weight, gradient, state, rate, decay, scale)
                             one step in place: weight, gradient and each array of state flat and equally long,
                             op the operations of the backend; the gradient counts scale times, and is not changed
    """

    state_names: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __init__(self, parameters: Mapping[str, np.ndarray], weight_decay: float = 0.0) -> None:
        self.parameters, self.weight_decay, self.steps = parameters, weight_decay, 0
        self._flat = isinstance(parameters, Store)
        if isinstance(parameters, Store):
            self._size, dtype = len(parameters.flat), parameters.flat.dtype
        else:
            _check_arrays(parameters)
            self._size = sum(array.size for array in parameters.values())
            dtype = np.result_type(*parameters.values())
        self.state = {name: aligned_zeros(self._size, dtype) for name in self.state_names}

    def step(
        self, gradients: Mapping[str, np.ndarray], rate: float, scale: float = 1.0, workers: Workers | None = None
    ) -> None:
        """One update with the learning rate `rate`

        gradients: as the parameters, a Store or a mapping of the same names and shapes. scale: a factor of the
        gradient, such as minillama.training.clipping.clip_scale gives. workers: those of the model, to share the work;
        a Store's only.
        """
        if not self._flat:
            gradients = self._checked(gradients)
        self.steps += 1
        op = backend.active()
        if not self._flat:
            self._step_by_name(op, gradients, rate, scale)
        elif workers is None:
            self._step_part(op, cast(Store, gradients).flat, slice(0, self._size), rate, scale)
        else:
            flat = cast(Store, gradients).flat
            workers.run(lambda _, part: self._step_part(op, flat, part, rate, scale), workers.split(self._size))

    def _step_part(self, op: Any, gradient: np.ndarray, part: slice, rate: float, scale: float) -> None:
        parameters = cast(Store, self.parameters)
        weight, matrices = parameters.flat, len(parameters.matrices)
        for start, stop, decay in (
            (part.start, min(part.stop, matrices), self.weight_decay),
            (max(part.start, matrices), part.stop, 0.0),
        ):
            if start < stop:
                state = [array[start:stop] for array in self.state.values()]
                self.update(op, weight[start:stop], gradient[start:stop], state, rate, decay, scale)

    def _step_by_name(self, op: Any, gradients: Mapping[str, np.ndarray], rate: float, scale: float) -> None:
        start = 0
        for name, weight in self.parameters.items():
            state = [array[start : start + weight.size] for array in self.state.values()]
            decay = self.weight_decay if weight.ndim > 1 else 0.0
            self.update(op, weight.reshape(-1), gradients[name].reshape(-1), state, rate, decay, scale)
            start += weight.size

    def _checked(self, gradients: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{name: gradient} with the parameters' number type; ValueError where they are not gradients of these."""
        if gradients.keys() != self.parameters.keys():
            raise ValueError(
                f"gradients must have the names of the parameters, {', '.join(self.parameters)}; received "
                f"{', '.join(gradients)}"
            )
        arrays = {name: np.asarray(gradients[name], weight.dtype) for name, weight in self.parameters.items()}
        for name, gradient in arrays.items():
            weight = self.parameters[name]
            if gradient.shape != weight.shape:
                raise ValueError(
                    f"the gradient of {name} must have the shape of the parameter, {weight.shape}; received "
                    f"{gradient.shape}"
                )
        return arrays

    @classmethod  # settings is a Settings, whose module imports this one
    def with_settings(cls, parameters: Mapping[str, np.ndarray], settings: Any) -> "Optimizer":
        """The optimizer of these parameters with the numbers that minillama.training.trainer.Settings has for it."""
        raise NotImplementedError

    def update(
        self, op: Any, weight: np.ndarray, gradient: np.ndarray, state: Sequence[np.ndarray], rate: float,
        decay: float, scale: float,
    ) -> None:  # fmt: skip
        """One step in place on weight, and on state, the arrays of state_names; all are flat and equally long."""
        raise NotImplementedError


def _check_arrays(parameters: Mapping[str, np.ndarray]) -> None:
    """ValueError for what cannot be changed in place, one number after the other, and once."""
    if not isinstance(parameters, Mapping):
        raise ValueError(f"parameters must be a mapping {{name: array}}; received {type(parameters).__name__}")
    kinds = {array.dtype for array in parameters.values() if isinstance(array, np.ndarray)}
    for name, array in parameters.items():
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64) or len(kinds) > 1:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(
                f"parameters must be arrays of NumPy, all float32 or all float64; {name} is {kind}"
                + (f" among {', '.join(sorted(map(str, kinds)))}" if len(kinds) > 1 else "")
            )
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ValueError(
                f"parameters are changed in place, and {name} cannot be: it is "
                f"{'read-only' if array.flags.c_contiguous else 'a view, such as a transpose'}; give a copy"
            )
    names = {id(array): name for name, array in parameters.items()}
    for name, array in parameters.items():
        if names[id(array)] != name:
            raise ValueError(
                f"{name} and {names[id(array)]} are the same array, which would be moved twice in a step; give it "
                f"under one name, and as its gradient the sum of both"
            )
    if not parameters:
        raise ValueError("there are no parameters to optimize; give a mapping {name: array}")
