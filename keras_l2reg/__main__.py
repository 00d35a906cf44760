"""`python -m keras_l2reg FILE.keras ...`: audit saved models.

Importing Keras takes seconds, so it is imported only if there is a model to load, not
for `--help` or for files that are not models. For the same reason,
`keras_l2reg/__init__.py` imports nothing when Python runs this module.
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras_l2reg
from keras_l2reg._load_errors import module_of, reason_of
from keras_l2reg._model_files import problem_with

if TYPE_CHECKING:
    import keras

EXIT_NO_FINDINGS, EXIT_FINDINGS, EXIT_FAILED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit the models in files and print the findings.

    Args:
        arguments: Command-line arguments. Defaults to `None`, those of the program.

    Returns:
        `0` if there are no findings, `1` if there are some, `2` if a file or a module
        could not be read.
    """
    options = _parser().parse_args(arguments)
    files = [*dict.fromkeys(options.files)]
    problems = {file: problem for file in files if (problem := problem_with(file))}
    for file, problem in problems.items():
        _print_error(file, problem)
    found = {}
    try:
        custom = _start_keras(options.imports) if len(problems) < len(files) else {}
    except _Failure as error:
        _print_error(*error.args)
        return EXIT_FAILED
    for file in files:
        if file in problems:
            continue
        try:
            model = _load(file, custom)
        except _Failure as error:
            _print_error(*error.args)
            continue
        found[file] = keras_l2reg.audit(model)
        if not options.json:
            _print_findings(file if len(files) > 1 else None, model, found[file])
    if options.json:
        print(json.dumps(_records(found), indent=2))
    if len(found) < len(files):
        return EXIT_FAILED
    return EXIT_FINDINGS if any(found.values()) else EXIT_NO_FINDINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_l2reg",
        description="Detect common mistakes in the weight regularization of saved "
        "Keras models.",
        epilog="Exit code: 0 no findings, 1 findings, 2 an error, such as a file that "
        "can't be read.",
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE.keras", help="a model saved by Keras 3"
    )
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="imports",
        metavar="MODULE",
        help="first import a module with the models' custom layers; may be repeated",
    )
    return parser


class _Failure(Exception):
    """An expected failure: the file or option concerned, and the reason."""


def _start_keras(modules: Sequence[str]) -> dict[str, Any]:
    """Import Keras, then the modules; return their classes and functions by name."""
    with _without_native_log():
        # On every backend, Keras imports TensorFlow when it reads a config.
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
        # The package skipped its imports when Python imported it to find this module.
        if not hasattr(keras_l2reg, "audit"):
            importlib.reload(keras_l2reg)
    custom = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {_one_line(str(error))}"
            if name.endswith(".py"):
                reason += f". Pass the name of the module: {name.removesuffix('.py')}"
            raise _Failure(f"--import {name}", reason) from error
        # Without `custom_objects`, Keras finds only registered classes.
        custom |= {
            key: value
            for key, value in vars(module).items()
            if f"{getattr(value, '__module__', '')}.".startswith(f"{name}.")
            and callable(value)
        }
    return custom


@contextlib.contextmanager
def _without_native_log() -> Iterator[None]:
    """Hide what TensorFlow writes to stderr as it starts, unless starting fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Some lines are written before TensorFlow reads that variable, and from C++, so
    # the file descriptor itself is redirected.
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(stderr, log.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _load(file: str, custom_objects: Mapping[str, Any]) -> "keras.Model":
    import keras

    try:
        with warnings.catch_warnings():
            # About optimizer variables that do not match, which the audit does not use.
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(file, custom_objects, safe_mode=True)
    except Exception as error:
        raise _Failure(file, _reason(error)) from error
    if not isinstance(model, keras.Model):
        raise _Failure(
            file,
            f"contains a {type(model).__name__}, not a model. Save the model that "
            "contains it, or put it into one: `keras.Sequential([layer])`",
        )
    return model


def _reason(error: Exception) -> str:
    """Why Keras could not load a model and what to do about it, in one line."""
    reason = _one_line(reason_of(error))
    if reason.startswith("Could not locate"):
        missing = reason.partition(".")[0]
        return (
            f"{missing}. Import the module that defines it: --import "
            f"{module_of(error) or 'MODULE'}"
        )
    risk, advice, _ = reason.partition(" If you trust")
    if advice:
        return (
            f"{risk} If you trust the file, load it in Python with `safe_mode=False`, "
            "and call `keras_l2reg.audit(model)` there."
        )
    return reason


def _one_line(text: str, longest: int = 1000) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _records(found: "Mapping[str, keras_l2reg.Findings]") -> list[dict[str, Any]]:
    return [
        {"file": file, **dataclasses.asdict(finding)}
        for file, findings in found.items()
        for finding in findings
    ]


def _print_findings(
    heading: str | None, model: "keras.Model", findings: "keras_l2reg.Findings"
) -> None:
    from keras_l2reg._audit.decay import describe_optimizer

    lines = [heading, describe_optimizer(model), str(findings)]
    print("\n".join(line for line in lines if line), end="\n\n" if heading else "\n")


def _print_error(subject: str, reason: str) -> None:
    print(f"keras_l2reg: {subject}: {reason}", file=sys.stderr)


def _run() -> int:
    """Run `main` as a program; unexpected errors also exit with code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal can't encode are printed as escapes.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
        sys.stdout.flush()
    except Exception as error:
        if not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        # At exit, Python would try to write the rest of stdout again.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


if __name__ == "__main__":
    sys.exit(_run())
