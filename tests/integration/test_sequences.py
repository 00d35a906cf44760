"""Random sequences of calls on models that share layers, against a plain reference.

The reference is independent of Keras: a stack of numbers for each weight, and who put
them there. Ten sequences in a plain run, 500 with `pytest -m slow`.
"""

import dataclasses
import itertools
import pathlib
import tempfile
import warnings

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import X, still

from keras_l2reg import L1L2, L2AllWeights, attach, detach

SQUARES = {"shared": 12, "first": 6, "second": 3}
WEIGHTS = {
    "a": ["shared", "first"],
    "b": ["shared", "second"],
    "outer": ["shared", "first"],
}


# -------------------------------------------------------------------- the reference


@dataclasses.dataclass
class Entry:
    owner: object  # the model's name for `attach`, a number for a wrapper
    model: str
    strength: float
    adds: bool
    kind: str = "number"
    l1: float = 0.0  # the part of the strength that is L1


def strength_on(kind, strength, weight):
    """What a penalty of this kind contributes to a weight, times the sum of squares.

    All weights are ones, so that sums of absolutes are those of squares, and distances
    from the start are zero.
    """
    if kind == "parts":
        return strength if weight == "shared" else 2 * strength
    return 0.0 if kind == "start" else strength


class Reference:
    """The strengths on each weight, as numbers."""

    def __init__(self, originals):
        self.base = dict.fromkeys(SQUARES) | originals
        self.stacks = {name: [] for name in SQUARES}
        self.frozen = set()

    def effect(self, weight, without=None):
        value = self.base[weight]
        for entry in self.stacks[weight]:
            if without is None or entry.model != without:
                adds = entry.adds and value is not None
                value = entry.strength + (value if adds else 0)
        return value

    def penalty(self, model):
        return sum(
            SQUARES[w] * (self.effect(w) or 0.0)
            for w in WEIGHTS[model]
            if w not in self.frozen
        )

    def put(self, owner, model, strength, existing, kind):
        """Add an entry to each chosen weight; returns whether the call is accepted."""
        chosen = [
            w
            for w in WEIGHTS[model]
            if existing in ("replace", "add") or self.effect(w, without=model) is None
        ]
        if not chosen:
            return False
        if owner == model and existing != "add":
            self.remove({owner})
        for weight in chosen:
            on_weight = strength_on(kind, strength, weight)
            entry = Entry(
                owner, model, on_weight, existing == "add", kind, strength / 2
            )
            self.stacks[weight].append(entry)
        return True

    def remove(self, owners):
        for weight, entries in self.stacks.items():
            self.stacks[weight] = [e for e in entries if e.owner not in owners]

    def detach(self, model):
        found = [e for w in WEIGHTS[model] for e in self.stacks[w] if e.model == model]
        owners = {e.owner for e in found if e.owner == model}
        owners = owners or {e.owner for e in found}
        self.remove(owners)
        return bool(owners)

    def reaches(self, owner):
        for entries in self.stacks.values():
            for entry in reversed(entries):
                if entry.owner == owner:
                    return True
                if not entry.adds:
                    break
        return False

    def kinds(self, owner):
        entries = itertools.chain(*self.stacks.values())
        return {entry.kind for entry in entries if entry.owner == owner}

    def assign(self, owner, strength):
        for entry in itertools.chain(*self.stacks.values()):
            if entry.owner == owner:
                # Of the kind "l1", half the strength was l1, and stays.
                entry.strength = {
                    "number": strength,
                    "l1": entry.l1 + strength,
                    "start": 0.0,
                }[entry.kind]

    def keep_for_good(self, owner):
        for weight, entries in self.stacks.items():
            for entry in entries:
                if entry.owner == owner:
                    entry.owner = entry.model = None
            while entries and entries[0].owner is None:
                entry = entries.pop(0)
                adds = entry.adds and self.base[weight] is not None
                below = self.base[weight] if adds else 0
                self.base[weight] = entry.strength + below


# ------------------------------------------------------------------------- in Keras


class InKeras:
    """The same in Keras, compared with the reference after each action."""

    def __init__(self, originals):
        self.reference = Reference(originals)
        x = keras.Input((4,))
        kwargs = {
            name: {"kernel_regularizer": keras.regularizers.L2(l2)}
            for name, l2 in originals.items()
        }

        def dense(units, name):
            return keras.layers.Dense(
                units, name=name, kernel_initializer="ones", **kwargs.get(name, {})
            )

        shared = dense(3, "shared")(x)
        a = keras.Model(x, dense(2, "first")(shared))
        b = keras.Model(x, dense(1, "second")(shared))
        outer = keras.Sequential([keras.Input((4,)), a])
        self.models = {"a": a, "b": b, "outer": outer}
        for model in self.models.values():
            # So that the package knows it: it does not reset the compiled steps of
            # models that it does not know, which `audit` finds (see its tests).
            detach(attach(model, 0.1, existing="add"))
        self.layers = {
            "shared": a.get_layer("shared"),
            "first": a.get_layer("first"),
            "second": b.get_layer("second"),
        }
        self.wrappers = []  # (wrapper, name of its model)

    def act(self, action, *arguments):
        getattr(self, action)(*arguments)
        for name, model in self.models.items():
            assert_close(penalty(model), self.reference.penalty(name))

    def attach(self, name, strength, existing, kind):
        regularizer = ARGUMENTS[kind](strength).get("regularizer", strength)
        with outcome(self.reference.put(name, name, strength, existing, kind)):
            attach(self.models[name], regularizer, existing=existing)

    def detach(self, name):
        with outcome(self.reference.detach(name)):
            detach(self.models[name])

    def wrap(self, name, strength, existing, kind):
        owner = len(self.wrappers)
        arguments = ARGUMENTS[kind](strength)
        with outcome(self.reference.put(owner, name, strength, existing, kind)):
            wrapper = L2AllWeights(self.models[name], existing=existing, **arguments)
            self.wrappers.append((wrapper, name))

    def unwrap(self, number, strip):
        if number < len(self.wrappers):
            is_possible = strip or self.reference.kinds(number) != {"start"}
            with outcome(is_possible):
                self.wrappers[number][0].unwrap(strip=strip)
            if strip:
                self.reference.remove({number})
            elif is_possible:
                self.reference.keep_for_good(number)

    def assign(self, number, strength):
        if number < len(self.wrappers):
            reaches = self.reference.reaches(number)
            reaches &= self.reference.kinds(number) != {"parts"}
            with outcome(reaches):
                self.wrappers[number][0].l2 = strength
            if reaches:
                self.reference.assign(number, strength)

    def fit(self, number):
        trainable = [(model, name) for name, model in self.models.items()]
        model, name = (trainable + self.wrappers)[number % 5 % (3 + len(self.wrappers))]
        if not model.compiled:
            model.compile(still(), "mse")
        y = model.predict(X, verbose=0)
        loss = model.fit(X, y, verbose=0).history["loss"][0]
        assert_close(loss, self.reference.penalty(name))

    def save(self, number):
        trainable = [(model, name) for name, model in self.models.items()]
        model, name = (trainable + self.wrappers)[number % (3 + len(self.wrappers))]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.keras"
            model.save(path)
            loaded = keras.saving.load_model(path)
        assert_close(penalty(loaded), self.reference.penalty(name))

    def flip(self, layer):
        self.layers[layer].trainable ^= True
        self.reference.frozen ^= {layer}
        # What Keras asks of those who change what is trained.
        for model in [*self.models.values(), *(w for w, _ in self.wrappers)]:
            if model.compiled:
                model.compile(still(), "mse")


def penalty(model):
    return sum(float(keras.ops.convert_to_numpy(term)) for term in model.losses)


def assert_close(received, expected):
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def outcome(is_accepted):
    """The context for a call that should be accepted, or refused."""
    if is_accepted:
        return warnings.catch_warnings()
    return pytest.raises(ValueError)


# The arguments of a wrapper of each kind.
ARGUMENTS = {
    "number": lambda s: {"l2": s},
    "l1": lambda s: {"regularizer": L1L2(s / 2, s / 2)},
    "parts": lambda s: {"regularizer": {"*": 2 * s, "*shared/*": s}},
    "start": lambda s: {"l2": s, "towards_start": True},
}
KINDS = st.sampled_from([*ARGUMENTS])
NAMES = st.sampled_from(sorted(WEIGHTS))
STRENGTHS = st.sampled_from([0.1, 0.25, 1.0, 2.0])
EXISTING = st.sampled_from([None, "keep", "replace", "add"])
NUMBERS = st.integers(0, 4)
ACTIONS = st.one_of(
    st.tuples(
        st.just("attach"), NAMES, STRENGTHS, EXISTING, KINDS.filter("start".__ne__)
    ),
    st.tuples(st.just("wrap"), NAMES, STRENGTHS, EXISTING, KINDS),
    st.tuples(st.just("detach"), NAMES),
    st.tuples(st.just("unwrap"), NUMBERS, st.booleans()),
    st.tuples(st.just("assign"), NUMBERS, STRENGTHS),
    st.tuples(st.just("fit"), NUMBERS),
    st.tuples(st.just("save"), NUMBERS),
    st.tuples(st.just("flip"), st.sampled_from(sorted(SQUARES))),
)
SEQUENCES = st.lists(ACTIONS, min_size=2, max_size=10)
ORIGINALS = st.dictionaries(st.sampled_from(sorted(SQUARES)), STRENGTHS, max_size=2)


def run(originals, actions):
    keras.utils.clear_session(free_memory=False)
    in_keras = InKeras(originals)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for action in actions:
            in_keras.act(*action)


QUIET = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}


@settings(max_examples=10, **QUIET)
@given(ORIGINALS, SEQUENCES)
def test_penalties_agree_with_the_reference_after_each_call(originals, actions):
    run(originals, actions)


@pytest.mark.slow
@settings(max_examples=500, **QUIET)
@given(ORIGINALS, SEQUENCES)
def test_penalties_agree_with_the_reference_after_each_call_500_times(
    originals, actions
):
    run(originals, actions)
