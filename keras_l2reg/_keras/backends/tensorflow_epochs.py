"""TensorFlow: the steps of an epoch in one graph."""

import functools
import itertools
import random

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common.global_state import set_global_attribute
from keras.src.random import seed_generator
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED, get_random_seed

from keras_l2reg._keras.array_epochs import ArrayEpochs
from keras_l2reg._keras.steps import function_within


class TensorFlowEpochs(ArrayEpochs):
    """See `ArrayEpochs`. The steps themselves are those that Keras compiles."""

    def __init__(self, model):
        super().__init__(model)
        # For "train" and "test", the step that Keras made, and an epoch of it.
        self._epochs = {}
        # The order of the samples for each seed; TensorFlow takes 20 ms to make one.
        self._orders = {}

    def can_run(self, batches):
        model = self.model
        is_distributed = model._distribute_strategy or tf.distribute.has_strategy()
        is_usual = not is_distributed and not model.run_eagerly
        leaves = keras.tree.flatten(batches.tensors)
        is_dense = all(isinstance(leaf, tf.Tensor) for leaf in leaves)
        return is_usual and model.steps_per_execution == 1 and is_dense

    def converted(self, adapter):
        return next(iter(adapter.get_tf_dataset()))

    def set_seed(self, seed, batches):
        has_order = _order_key(batches, seed) in self._orders
        if has_order and not self._is_left_to_keras and not self._draws():
            set_seed_outside_tensorflow(seed)
        else:
            super().set_seed(seed, batches)

    def _draws(self):
        """Whether an epoch draws random numbers whose state TensorFlow keeps."""
        return any(draws_numbers(epoch) for _, epoch in self._epochs.values())

    def orders(self, batches):
        seed = get_random_seed()
        key = _order_key(batches, seed)
        order = self._orders.get(key)
        if order is None:
            dataset = _indices(batches)
            if batches.shuffle and _shuffles_anew():
                yield from itertools.repeat(dataset)
            order = [*dataset]
            if seed is not None or not batches.shuffle:
                self._orders[key] = order
        yield from itertools.repeat(order)

    def train(self, batches, order):
        self.model.make_train_function()
        return self._run("train", self.model.train_function, batches, order)

    def test(self, batches, order):
        self.model.make_test_function()
        return self._run("test", self.model.test_function, batches, order)

    def _run(self, name, function, batches, order):
        made_of, epoch = self._epochs.get(name, (None, None))
        if made_of is not function:
            epoch = _epoch_of(self.model, function)
            self._epochs[name] = function, epoch
        order, size = tf.concat([*order], 0), batches.size
        static_size = None if batches.count % size else size
        return epoch(batches.tensors, order, size, static_size)


def _order_key(batches, seed):
    shuffle = batches.shuffle
    return batches.count, batches.size, shuffle, seed if shuffle else None


def set_seed_outside_tensorflow(seed):
    """`keras.utils.set_random_seed`, without `tf.random.set_seed`.

    That one makes TensorFlow prepare each compiled function again, as long as 15 steps
    of a small network, and matters only to what `draws_numbers`.
    """
    set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    # Keras 3.12 leaves its global seed generator as it is.
    if hasattr(seed_generator, "GLOBAL_SEED_GENERATOR"):
        set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, None)
    random.seed(seed)
    np.random.seed(seed)


def draws_numbers(function):
    """Whether a `tf.function`, as traced so far, draws from TensorFlow's random state.

    Keras' layers don't: their states are variables of the model.
    """
    for traced in function._list_all_concrete_functions():
        graph = traced.graph.as_graph_def()
        parts = [graph.node, *(part.node_def for part in graph.library.function)]
        for node in itertools.chain.from_iterable(parts):
            # All such operations have this attribute; and Python may call one of them.
            if "seed2" in node.attr or "PyFunc" in node.op:
                return True
    return False


def _indices(batches):
    """The data set of the indices of the samples, batch by batch."""
    indices = np.arange(batches.count, dtype="int32")
    adapter = ArrayDataAdapter(
        indices, batch_size=batches.size, shuffle=batches.shuffle
    )
    return adapter.get_tf_dataset()


def _epoch_of(model, function):
    step = function_within(function, is_step)

    # Python numbers make a trace of their own, so there is one for each batch size.
    @tf.function(reduce_retracing=True)
    def epoch(tensors, order, size, static_size):
        def take_step(start):
            indices = order[start : start + size]
            indices.set_shape([static_size])
            # As in Keras, the samples are on the CPU, and batches where the model is.
            with tf.device("CPU:0"):
                batch = keras.tree.map_structure(
                    lambda tensor: tf.gather(tensor, indices), tensors
                )
            step(batch)
            return start + size

        tf.while_loop(lambda start: start < tf.size(order), take_step, [0])
        return model.get_metrics_result()

    return epoch


def is_step(function) -> bool:
    """Whether a function is a compiled step on a batch."""
    return hasattr(function, "_list_all_concrete_functions") and (
        function.__name__ == "one_step_on_data"
    )


@functools.cache
def _shuffles_anew() -> bool:
    """Whether each epoch of a `fit` has an order of its own when the seed is set.

    It has not with TensorFlow 2.21, which makes the seeded shuffle again.
    """
    adapter = ArrayDataAdapter(np.arange(64), batch_size=64, shuffle=True)
    first, second = (next(iter(data)) for data in [adapter.get_tf_dataset()] * 2)
    return bool(tf.reduce_any(first != second))
