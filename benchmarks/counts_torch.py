"""What a step costs on torch: operations, bytes and Python calls, counted.

    KERAS_BACKEND=torch python benchmarks/counts_torch.py [--quick]

Counts do not depend on the machine or on its other load:

============  ==================================================================
launches      operations that compute something: not views, but each tensor of a
              `_foreach` operation
allocated MB  what they allocate; memory that is freed again is not subtracted
moved MB      the tensors that they read and write, as if nothing stayed in cache
Python calls  calls of Python functions
============  ==================================================================
"""

import argparse
import collections
import json
import sys

import keras
import numpy as np
import torch
from rivals import NETWORKS, RIVALS, rivals_for
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

COUNTED = ("no penalty", "keras.regularizers.L2", "attach", "L2AllWeights")
COUNTED += ("weight_decay", "decay of L2AllWeights")


def counts(quick=False):
    """The counts of a step: `{network: {rival: {count: [value]}}}`."""
    networks = dict(list(NETWORKS.items())[:2]) if quick else NETWORKS
    answer = {}
    for name, (build, shape, batch, _) in networks.items():
        answer[name] = {}
        for rival in [r for r in COUNTED if r in rivals_for(name)]:
            model, decay = RIVALS[rival](build)
            step = one_step(model, shape, 2 if quick else batch, decay)
            answer[name][rival] = {k: [v] for k, v in counted(step).items()}
        keras.backend.clear_session()
    return answer


def one_step(model, shape, batch, decay=None, optimizer=None):
    """A function that runs one training step of `model`, after some to warm up."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(batch, *shape)).astype("float32"))
    y = torch.tensor(rng.normal(size=(batch, *model.output_shape[1:])), dtype=x.dtype)
    model.compile(optimizer or keras.optimizers.SGD(1e-6, weight_decay=decay), "mse")

    def step():
        model.train_step((x, y))

    for _ in range(3):
        step()
    return step


def counted(step):
    """The counts of one call of `step`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [e for e in profiled.events() or () if e.name.startswith("aten::")]
    with _Passes() as passes:
        step()
    return {
        "launches": sum(passes.launches.values()),
        "allocated MB": sum(max(e.self_cpu_memory_usage, 0) for e in events) / 1e6,
        "moved MB": passes.bytes / 1e6,
        "Python calls": python_calls(step),
    }


def python_calls(function):
    """How many calls of Python functions `function()` makes."""
    calls = collections.Counter()

    def count(frame, event, argument):
        calls[event] += 1

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls["call"]


class _Passes(TorchDispatchMode):
    """Counts operations, and the bytes of what they read and write."""

    def __init__(self):
        super().__init__()
        self.launches = collections.Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").split(".")[0]
        read = _tensors([args, kwargs])
        is_free = func.is_view or name in _FREE
        if is_free or func.namespace != "aten" or not read:
            return result
        written = [result]
        if func._schema.is_mutable:
            declared = [argument.alias_info for argument in func._schema.arguments]
            pairs = zip(args, declared, strict=False)
            written = [a for a, alias in pairs if alias is not None and alias.is_write]
        if name in _ONLY_WRITE_THE_FIRST:
            read = _tensors(args[1:])
        tensors = len(_tensors(args[:1])) if name.startswith("_foreach") else 1
        self.launches[func.name()] += tensors
        self.bytes += sum(_size(t) for t in [*read, *_tensors(written)])
        return result


_FREE = ("detach", "empty_like", "new_empty", "new_empty_strided")
_ONLY_WRITE_THE_FIRST = ("copy_", "fill_", "zero_")


def _tensors(nest):
    leaves = torch.utils._pytree.tree_leaves(nest)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _size(tensor):
    # A tensor that is broadcast is read once.
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.itemsize * int(np.prod([n for n, stride in sizes if stride]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    answer = counts(parser.parse_args().quick)
    for network, rivals in answer.items():
        bare = rivals["no penalty"]
        for rival, values in rivals.items():
            added = {key: value[0] for key, value in values.items()}
            if rival != "no penalty":
                added = {key: value - bare[key][0] for key, value in added.items()}
            row = {key: round(value, 2) for key, value in added.items()}
            print(f"{network:20} {rival:24} {json.dumps(row)}")


if __name__ == "__main__":
    main()
