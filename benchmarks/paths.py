"""The question `path`: `l2_path` and its rivals, on networks of several sizes."""

import functools
import itertools
import tempfile

import keras
import numpy as np
from keras import layers
from rivals import seed_network, tabular_network
from rounds import interleaved, timed

from keras_l2reg import L2AllWeights, l2_path

KIND = keras.backend.backend()


def path(quick, rounds):
    """The seconds of a path of 12 strengths, and of many runs on JAX."""
    rng = np.random.default_rng(0)
    strengths = np.geomspace(1e-5, 1e-2, 4 if quick else 12).tolist()

    def data(samples, features, outputs):
        shapes = (samples, features), (samples, outputs)
        return [rng.normal(size=shape).astype("float32") for shape in shapes]

    warm_up(tabular_network, data(64, 30, 1))
    answer = {}
    if KIND == "tensorflow":
        seed, held_out = data(512 if quick else 2560, 784, 10), data(128, 784, 10)
        fit = {"validation_data": held_out, "batch_size": 128, "epochs": 3}
        rivals = path_rivals(seed_network, "sgd", strengths, seed, fit)
        answer["seed 784-1024-10"] = interleaved(rivals, rounds, warm=False)
    tabular, held_out = data(1000, 30, 1), data(200, 30, 1)
    fit = {"batch_size": 64, "epochs": 5 if quick else 50}
    held_out = {"validation_data": held_out}
    rivals = path_rivals(tabular_network, "adam", strengths, tabular, fit | held_out)
    if KIND == "jax":
        import by_hand

        rivals["JAX alone, by hand"] = timed(
            functools.partial(
                by_hand.path, (30, 64, 64, 1), strengths, tabular, **held_out, **fit
            )
        )
    answer["tabular 30-64-64-1"] = interleaved(rivals, rounds, warm=False)
    if KIND == "jax":
        folds = {"cv": 5, "repeats": 1 if quick else 3}
        rivals = model_rivals(tabular_network, strengths, tabular, fit | folds)
        name = f"tabular, {len(strengths)} strengths, 5 folds, {folds['repeats']} times"
        answer[name] = interleaved(rivals, 1, warm=False)
        for name, (build, samples, epochs) in AT_THE_LIMITS.items():
            x, y = samples(rng), rng.normal(size=(640, 1)).astype("float32")
            fit = {"validation_data": (x[:100], y[:100]), "batch_size": 32}
            fit["epochs"] = 1 if quick else epochs
            rivals = model_rivals(build, [1e-5, 1e-4, 1e-3, 1e-2], (x, y), fit)
            answer[f"limit: {name}"] = interleaved(rivals, 2 if quick else 3, warm=True)
    return answer


def warm_up(build, data):
    """What a backend does once in a process is no rival's; nor is what Keras does."""
    keras.utils.set_random_seed(0)  # imports TensorFlow, on every backend
    model = build()
    model.compile("adam", "mse")
    model.fit(*data, verbose=0)


def path_rivals(build, optimizer, strengths, data, fit):
    """A path, and ways to get one that build the model for each strength."""

    def ours(**arguments):
        model = build()
        model.compile(optimizer, "mse")
        l2_path(model, *data, l2=strengths, verbose=0, **fit, **arguments)

    def rebuild(strength):
        model = build(keras.regularizers.L2(strength))
        model.compile(optimizer, "mse")
        return model

    def loop():
        for strength in strengths:
            rebuild(strength).fit(*data, verbose=0, **fit)

    rivals = {"l2_path": timed(ours), "rebuild per strength": timed(loop)}
    one_model = functools.partial(fit_one_model, build, optimizer, strengths, data)
    rivals["fit of one model"] = timed(functools.partial(one_model, **fit))
    if KIND == "jax":
        one_by_one = functools.partial(ours, together=False)
        rivals["l2_path, together=False"] = timed(one_by_one)
    try:
        import keras_tuner
    except ImportError:
        print("path: skipped KerasTuner, which is not installed")
        return rivals

    def tuner():
        with tempfile.TemporaryDirectory() as folder:
            search = keras_tuner.GridSearch(
                lambda hp: rebuild(hp.Choice("l2", strengths)),
                objective="val_loss",
                max_trials=len(strengths),
                directory=folder,
            )
            search.search(*data, verbose=0, **fit)

    rivals["KerasTuner GridSearch"] = timed(tuner)
    return rivals


def model_rivals(build, strengths, data, fit):
    """A path, and the same fits of one model, one after the other."""

    def ours():
        model = build()
        model.compile("adam", "mse")
        l2_path(model, *data, l2=strengths, verbose=0, **fit)

    loop = functools.partial(fit_one_model, build, "adam", strengths, data, **fit)
    return {"l2_path": timed(ours), "fit of one model": timed(loop)}


def fit_one_model(build, optimizer, strengths, data, cv=None, repeats=1, **fit):
    """The fits and evaluations of a path, by `fit` and `evaluate` of one wrapper."""
    model = L2AllWeights(build())
    model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    start = [keras.ops.convert_to_numpy(v) for v in variables]
    held_out = fit.pop("validation_data", None)
    for strength, fold, _ in itertools.product(
        strengths, range(cv or 1), range(repeats)
    ):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        model.l2, training = strength, data
        if cv is not None:
            is_held_out = np.arange(len(data[0])) % cv == fold
            training = [part[~is_held_out] for part in data]
            held_out = [part[is_held_out] for part in data]
        model.fit(*training, verbose=0, **fit)
        model.evaluate(*held_out, fit["batch_size"], verbose=0)


def dense_stack(features, width, depth):
    def build():
        hidden = [layers.Dense(width, activation="relu") for _ in range(depth)]
        return keras.Sequential([keras.Input((features,)), *hidden, layers.Dense(1)])

    return build


def recurrent():
    return keras.Sequential([keras.Input((20, 8)), layers.LSTM(16), layers.Dense(1)])


def embedding():
    found = [layers.Embedding(5000, 32), layers.GlobalAveragePooling1D()]
    return keras.Sequential([keras.Input((20,)), *found, layers.Dense(1)])


def attention():
    inputs = keras.Input((8, 16))
    added = inputs + layers.MultiHeadAttention(2, 8)(inputs, inputs)
    flat = layers.Flatten()(layers.LayerNormalization()(added))
    return keras.Model(inputs, layers.Dense(1)(flat))


def normal(*shape):
    return lambda rng: rng.normal(size=(640, *shape)).astype("float32")


def words(count):
    return lambda rng: rng.integers(0, count, (640, 20)).astype("int32")


# A builder, samples, and as many epochs of 20 steps as make 4 runs just long enough to
# be done together by default; or a step just small enough.
AT_THE_LIMITS = {
    "16-16-1": (dense_stack(10, 16, 1), normal(10), 5),
    "128-180-180-1": (dense_stack(128, 180, 2), normal(128), 7),
    "20 layers of 32": (dense_stack(32, 32, 20), normal(32), 38),
    "LSTM(16)": (recurrent, normal(20, 8), 7),
    "embedding 5000 x 32": (embedding, words(5000), 4),
    "attention": (attention, normal(8, 16), 14),
}
