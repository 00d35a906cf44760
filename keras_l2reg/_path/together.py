"""The runs of a path as one compiled program: each epoch of many runs is one call.

The state of the runs has a leading axis; shuffles, dropout seeds, batches and metrics
are those that `fit` would have, so every figure is that of `runs`.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_l2reg import _keras
from keras_l2reg._path import batches
from keras_l2reg._path.points import Point
from keras_l2reg._path.runs import (
    Arrays,
    Result,
    Run,
    Setup,
    numbers,
    read,
    run_of,
    runs,
    set_point,
    state_of,
)
from keras_l2reg.models import L2AllWeights


class Task(NamedTuple):
    """One run: a point, a fold (`None` for all data), and a repeat."""

    point: Point
    fold: int | None
    repeat: int


class Program:
    """Compiled epochs of the runs of a path, several at once.

    Args:
        model: A built, compiled `L2AllWeights`; its variables are read, and those of
            its strengths assigned.
        setup: The `Setup`.
    """

    def __init__(self, model: L2AllWeights, setup: Setup):
        self._model, self._setup = model, setup
        self._steps = _keras.backend.stacked(model)
        self._variables = [*state_of(model), *model.optimizer.variables]
        self._data: dict[bool, tuple[Any, Any]] = {}

    def results(
        self, tasks: list[Task], starts: list[Arrays], on_epoch: Callable[[int], None]
    ) -> Iterator[tuple[Run, Arrays]]:
        """Do these runs at once; their folds have the same numbers of samples.

        Args:
            tasks: The runs.
            starts: For each, the values of `state_of(model)` to start from.
            on_epoch: Called with the number of epochs after each.

        Yields:
            As `runs`, but always with the weights.
        """
        training, validation = self._placed_data(tasks[0].fold)
        state = self._steps.stack(self._variables, self._at_points(tasks, starts))
        evaluation = self._evaluation(tasks)
        is_finite, logs, evaluated = np.full(len(tasks), True), {}, {}
        for number, epoch in enumerate(self._epochs(tasks)):
            if number == 0:
                self._steps.compile(state, (training, epoch), (validation, evaluation))
            state, logs = self._steps.train(state, training, epoch)
            is_finite &= np.isfinite(logs["loss"])
            on_epoch(len(tasks))
        state = self._steps.finalize(state)
        if evaluation:
            state, evaluated = self._steps.test(state, validation, evaluation)
        ends = self._steps.unstack(state_of(self._model), state)
        for index, task in enumerate(tasks):
            metrics = numbers({key: value[index] for key, value in logs.items()})
            metrics |= {f"val_{k}": float(v[index]) for k, v in evaluated.items()}
            if not is_finite[index] or not math.isfinite(metrics.get("val_loss", 0.0)):
                metrics = dict.fromkeys(metrics, math.nan)
            yield run_of(*task, metrics), [np.array(end[index]) for end in ends]

    def step_cost(self) -> tuple[_keras.StepCost | None, int]:
        """What a step of one run costs, and the number of steps of its epochs."""
        fold = self._setup.data.fold_numbers[0]
        epoch = next(batches.epochs(self._model, self._setup, fold, repeat=0))
        training, _ = self._placed_data(fold)
        size = max(map(len, epoch))
        return self._steps.step_cost(training, size), len(epoch) * self._setup.epochs

    def compile_for(self, flops: int) -> None:
        """Choose how well to compile, for so many operations of all runs."""
        self._steps.compile_for(flops)

    def _placed_data(self, fold: int | None) -> tuple[Any, Any]:
        is_fold = fold is not None
        if is_fold not in self._data:
            parts = (
                batches.training_data(self._setup, fold),
                batches.validation_data(self._setup, fold),
            )
            self._data[is_fold] = self._steps.place(parts)
        return self._data[is_fold]

    def _at_points(self, tasks: list[Task], starts: list[Arrays]) -> list[Arrays]:
        """For each run, the values of all variables to start from."""
        optimizer_start = self._setup.optimizer_start
        values = [[*start, *optimizer_start] for start in starts]
        for point, group in itertools.groupby(
            range(len(tasks)), lambda i: tasks[i].point
        ):
            set_point(self._model, point)
            strengths = self._strengths()
            of_point = dict(
                zip(strengths, read(self._variables[i] for i in strengths), strict=True)
            )
            for run in group:
                for index, value in of_point.items():
                    values[run][index] = value
        return values

    def _strengths(self) -> list[int]:
        """Indices of the variables that a point may set."""
        live = {id(v) for v in self._model._strength_variables()}
        return [i for i, v in enumerate(self._variables) if id(v) in live]

    def _epochs(self, tasks: list[Task]) -> Iterator[list[np.ndarray]]:
        keys = [(task.fold, task.repeat) for task in tasks]
        of_key = {
            key: batches.epochs(self._model, self._setup, *key) for key in {*keys}
        }
        for epoch in zip(*of_key.values(), strict=True):
            of_run = dict(zip(of_key, epoch, strict=True))
            yield batches.stacked([of_run[key] for key in keys])

    def _evaluation(self, tasks: list[Task]) -> list[np.ndarray]:
        """The batches of the validation of all runs; none without validation data."""
        of_fold = {
            fold: batches.validation(self._model, self._setup, fold)
            for fold in {task.fold for task in tasks}
        }
        return batches.stacked([of_fold[task.fold] for task in tasks])


class Fitter:
    """Does runs of a path, several at once or one after the other.

    Args:
        model, setup: as for `runs`.
        program: The `Program`; `None` fits by `fit`.
        length: Integer >= 1, how many runs to do at once. Defaults to `1`.
    """

    def __init__(
        self,
        model: L2AllWeights,
        setup: Setup,
        program: Program | None,
        length: int = 1,
    ):
        self._model, self._setup = model, setup
        self._program, self._length = program, length

    def fits(
        self,
        lines: Sequence[Sequence[Point]],
        folds: Sequence[int | None],
        repeats: Sequence[int],
        on_epoch: Callable[[int], None],
    ) -> Iterator[Result]:
        """Like `runs`, for all lines."""
        if self._program is None:
            for line in lines:
                yield from runs(
                    self._model, self._setup, line, folds, repeats, on_epoch
                )
            return
        is_warm, ends = self._setup.warm, {}
        for points in _stages(lines, is_warm):
            tasks = [Task(*key) for key in itertools.product(points, folds, repeats)]
            for chunk in _chunks(tasks, self._setup, self._length):
                starts = [
                    ends.get(_line_of(task), self._setup.starts[task.repeat])
                    for task in chunk
                ]
                results = self._program.results(chunk, starts, on_epoch)
                for task, (run, end) in zip(chunk, results, strict=True):
                    if is_warm and math.isfinite(run["loss"]):
                        ends[_line_of(task)] = end
                    yield run, end if task.fold is None else None


def _stages(lines: Sequence[Sequence[Point]], warm: bool) -> Iterator[list[Point]]:
    """The points whose runs do not depend on each other, stage after stage."""
    if not warm:
        yield [*itertools.chain.from_iterable(lines)]
        return
    for points in itertools.zip_longest(*lines):
        yield [point for point in points if point is not None]


def _line_of(task: Task) -> tuple:
    return task.point.l1_ratio, task.fold, task.repeat


def _chunks(tasks: Iterable[Task], setup: Setup, length: int) -> Iterator[list[Task]]:
    """Runs with the same sizes of batches, at most `length` at once."""
    groups: dict[tuple[int, int], list[Task]] = {}
    for task in tasks:
        groups.setdefault(batches.sizes(setup, task.fold), []).append(task)
    for group in groups.values():
        # Of equal lengths, as far as possible: each length is compiled.
        size = math.ceil(len(group) / math.ceil(len(group) / length))
        for start in range(0, len(group), size):
            yield group[start : start + size]
