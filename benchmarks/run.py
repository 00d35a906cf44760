"""The cost of a penalty: seven questions, each answered by ratios within one run.

    python benchmarks/run.py            # all; an hour on 2 cores
    python benchmarks/run.py --quick    # tiny sizes, only to check that it works
    python benchmarks/run.py --only step --backends tensorflow

Every value is a median over rounds, with quartiles; within a round the rivals run in
random order, so that other load of the machine affects all of them. The rounds come
from several processes, since memory layout and thread scheduling differ between
processes. Every round is written to results.json, and plotted in results.png, beside
this file; with --only or --backends, the other answers from this machine are kept.

Needs the extras `examples`, `jax` and `torch`; the question `path` uses `keras-tuner`.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
PAGES = HERE.parent / "docs"
MODES = {
    "tensorflow": {"KERAS_BACKEND": "tensorflow"},
    "tensorflow-xla": {"KERAS_BACKEND": "tensorflow", "L2REG_JIT": "1"},
    "jax": {"KERAS_BACKEND": "jax"},
    "torch": {"KERAS_BACKEND": "torch"},
}
# Rounds in each process.
QUESTIONS = {
    "step": 4,
    "path": 3,
    "watching": 5,
    "around": 3,
    "memory": 1,
    "growth": 2,
    "counts": 1,
}
PROCESSES = 2
# Answers that hardly vary between processes.
ONE_PROCESS = ("counts", "memory", "watching", "around", "path", "growth")
# Answers that hardly depend on the backend, and those that XLA does not change.
TENSORFLOW_ONLY = ("around", "growth")
WITHOUT_XLA = ("watching", "path")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=[*QUESTIONS])
    parser.add_argument("--backends", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    args = parser.parse_args()

    start = time.monotonic()
    file = args.out / "results.json"
    results = earlier(file) | {"machine": machine(), "quick": args.quick}
    print(results["machine"])
    args.out.mkdir(parents=True, exist_ok=True)
    for question in args.only:
        for mode in args.backends:
            if not importlib.util.find_spec(MODES[mode]["KERAS_BACKEND"]):
                print(f"{question}, {mode}: skipped, not installed")
            elif is_asked(question, mode):
                is_one = args.quick or question in ONE_PROCESS
                processes = 1 if is_one else args.processes
                answer = ask(question, mode, args.quick, processes)
                results["answers"].setdefault(question, {})[mode] = answer
                file.write_text(json.dumps(results, indent=1) + "\n")

    from report import draw, show, write

    results["seconds"] = round(time.monotonic() - start)
    file.write_text(json.dumps(results, indent=1) + "\n")
    show(results)
    draw(results, args.out / "results.png")
    write(results, (PAGES if args.out == HERE else args.out) / "measurements.md")


def is_asked(question, mode):
    if question in TENSORFLOW_ONLY:
        return mode == "tensorflow"
    return mode != "tensorflow-xla" or question not in WITHOUT_XLA


def earlier(file):
    """The earlier results, if they are from this machine."""
    found = json.loads(file.read_text()) if file.exists() else {}
    return found if found.get("machine") == machine() else {"answers": {}}


def ask(question, mode, quick, processes):
    """The answer to one question, from separate processes that run one by one."""
    answers = []
    for _ in range(processes):
        with tempfile.TemporaryDirectory() as folder:
            answer = pathlib.Path(folder, "answer.json")
            command = [sys.executable, HERE / "questions.py", question, answer]
            rounds = 1 if quick else QUESTIONS[question]
            command += ["--rounds", str(rounds)] + ["--quick"] * quick
            env = {**os.environ, **MODES[mode], "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run(command, env=env, check=True)
            answers.append(json.loads(answer.read_text()))
    return pooled(answers)


def pooled(answers):
    """Nested dicts of the same structure as one, with their lists concatenated."""
    first = answers[0]
    if isinstance(first, list):
        return [value for answer in answers for value in answer]
    return {key: pooled([answer[key] for answer in answers]) for key in first}


def machine():
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if "model name" in x]
        model = names[0].split(":")[1].strip() if names else model
    versions = [
        f"{name} {importlib.import_module('importlib.metadata').version(name)}"
        for name in ("keras", "tensorflow", "jax", "torch")
        if importlib.util.find_spec(name)
    ]
    return f"{model}, {os.cpu_count()} cores, {', '.join(versions)}"


if __name__ == "__main__":
    main()
