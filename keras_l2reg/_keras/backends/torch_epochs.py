"""torch: the steps of an epoch without Keras between them, and soon without its Python.

Most of the time of a small step is Python that prepares a few hundred calls of torch.
A step that was run often is therefore recorded: from then on, only these calls are
made. It is recorded only if nothing but Keras', torch's and this package's code runs
in it, since code of a user may do something else in each step.
"""

import gc
import sys
from typing import Any

import keras
import numpy as np
import torch
from keras.src.backend.torch.trainer import TorchEpochIterator
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from keras_l2reg._keras.array_epochs import ArrayEpochs

# Steps of one shape before it is recorded, which takes the time of some hundred steps.
STEPS_BEFORE = 100

# Bytes of weights and other state above which Python takes little of a step's time,
# and the copies of a recording much memory.
_MOST_BYTES = 2**26

# Code that computes with tensors, and keeps nothing else from one step to the next.
_KNOWN = {"keras", "keras_l2reg", "torch", "numpy", "optree", *sys.stdlib_module_names}
_KNOWN -= {"__main__"}


class TorchEpochs(ArrayEpochs):
    """See `ArrayEpochs`."""

    def __init__(self, model):
        super().__init__(model)
        self._steps = {}

    def can_run(self, batches):
        model = self.model
        is_usual = not model.run_eagerly and not model.jit_compile
        return is_usual and model.steps_per_execution == 1

    def converted(self, adapter):
        # The samples stay on the CPU, as in Keras; batches go where the model is. A
        # loader draws a random number even if it does not shuffle.
        with keras.device("cpu"), torch.random.fork_rng():
            return next(iter(adapter.get_torch_dataloader()))

    def orders(self, batches):
        # It is of Keras, since it draws more random numbers than its loader.
        iterator = TorchEpochIterator(
            np.arange(batches.count), batch_size=batches.size, shuffle=batches.shuffle
        )
        while True:
            yield (indices.cpu() for _, _, (indices,) in iterator)

    def train(self, batches, order):
        self.model.train()
        self._run(self.model.train_step, batches, order)
        self.model.eval()
        return self.model.get_metrics_result()

    def test(self, batches, order):
        self.model.eval()
        with torch.no_grad():
            self._run(self.model.test_step, batches, order)
        return self.model.get_metrics_result()

    def _run(self, function, batches, order):
        leaves = keras.tree.flatten(batches.tensors)
        for indices in order:
            batch: list[Any] = [
                keras.ops.convert_to_tensor(leaf[indices]) for leaf in leaves
            ]
            key = function.__name__, str([(b.shape, b.dtype) for b in batch])
            if key not in self._steps:
                self._steps[key] = RecordedStep(function, batches.tensors)
            self._steps[key](batch)


class RecordedStep:
    """A function of a batch, whose calls of torch are recorded once it was run often.

    Args:
        function: A function that changes tensors in place, such as a training step; all
            its batches have the same shapes and dtypes.
        nest: A nest of the structure of a batch.
    """

    def __init__(self, function, nest):
        self._function = lambda batch: function(
            keras.tree.pack_sequence_as(nest, batch)
        )
        self._calls = 0
        self._state: list[torch.Tensor] = []
        self._program: Any = None

    def __call__(self, batch):
        """Run the function on the tensors of a batch, which are given as a list."""
        self._calls += 1
        if self._calls == STEPS_BEFORE:
            self._record(batch)
        elif self._calls == STEPS_BEFORE + 1 and self._program is not None:
            self._check(batch)
        elif self._program is not None:
            self._replay(batch)
        else:
            self._function(batch)

    @torch.no_grad()
    def _replay(self, batch):
        self._program(*self._state, *batch)

    def _record(self, batch):
        """Run the function, and record the calls that it would make next."""
        with _TensorsFromOutside(batch) as outside, _ModulesThatRun() as modules:
            self._function(batch)
        size = sum(tensor.nbytes for tensor in outside.tensors)
        if not modules.names <= _KNOWN or size > _MOST_BYTES:
            return
        self._state, count = outside.tensors, len(outside.tensors)

        def flat(*tensors):
            self._function(list(tensors[count:]))
            return ()

        try:
            with _undone(self._state):
                program = make_fx(flat)(*self._state, *batch)
        except Exception:
            # It depends on a value of a tensor, as dropout with a seed does.
            self._state = []
            return
        program.graph.eliminate_dead_code()
        program.recompile()
        self._program = program

    def _check(self, batch):
        """Run the function, and drop the program unless it does the same."""
        with _undone(self._state):
            self._replay(batch)
            replayed = [tensor.clone() for tensor in self._state]
        self._function(batch)
        pairs = zip(replayed, self._state, strict=True)
        if not all(torch.allclose(a, b, equal_nan=True) for a, b in pairs):
            self._state, self._program = [], None


class _TensorsFromOutside(TorchDispatchMode):
    """Collects the tensors that operations read, but none of them made.

    Args:
        known: Tensors to leave out.
    """

    def __init__(self, known):
        super().__init__()
        self.tensors = []
        self._seen = WeakIdKeyDictionary()
        list(self._unseen(known))

    def _unseen(self, nest):
        for leaf in pytree.tree_leaves(nest):
            if isinstance(leaf, torch.Tensor) and leaf not in self._seen:
                self._seen[leaf] = None
                yield leaf

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.tensors += self._unseen((args, kwargs))
        outputs = func(*args, **(kwargs or {}))
        list(self._unseen(outputs))
        return outputs


class _ModulesThatRun:
    """Collects the names of the packages whose Python code runs in this context."""

    def __init__(self):
        self.names = set()

    def __enter__(self):
        self._before = sys.getprofile(), gc.isenabled()
        # Any code may be called back when garbage is collected.
        gc.disable()
        sys.setprofile(self._add)
        return self

    def __exit__(self, *error):
        profiler, collects = self._before
        sys.setprofile(profiler)
        if collects:
            gc.enable()

    def _add(self, frame, event, argument):
        if event == "call":
            self.names.add(str(frame.f_globals.get("__name__")).partition(".")[0])


class _undone:
    """What this context does to these tensors and torch's random state is undone."""

    def __init__(self, tensors):
        self._tensors = tensors
        self._rng = torch.random.fork_rng()

    @torch.no_grad()
    def __enter__(self):
        self._before = [tensor.clone() for tensor in self._tensors]
        self._rng.__enter__()

    @torch.no_grad()
    def __exit__(self, *error):
        self._rng.__exit__(*error)
        for tensor, value in zip(self._tensors, self._before, strict=True):
            tensor.copy_(value)
