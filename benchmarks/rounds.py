"""Rounds in which the rivals run in random order."""

import random
import time


def interleaved(rivals, rounds, warm=True):
    """The results of each rival, one per round, in random order within a round."""
    for run in rivals.values() if warm else ():
        run()  # traces and warms up
    results = {name: [] for name in rivals}
    for _ in range(rounds):
        for name in random.sample(list(rivals), len(rivals)):
            results[name].append(rivals[name]())
    return results


def timed(run):
    """A function that calls `run` and returns the seconds it takes."""

    def seconds():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return seconds
