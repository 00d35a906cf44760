"""`python -m keras_l2reg FILE.keras ...`: the audit of saved models.

Keras takes seconds to import, so it is imported here only once it is needed: not for
`--help`, nor for what is no model. `keras_l2reg/__init__.py` does its part.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import sys
import tempfile
import traceback
import warnings

import keras_l2reg
from keras_l2reg._cli.load_errors import module_of, reason_of
from keras_l2reg._cli.model_files import fault_of

EXIT_NONE, EXIT_FINDINGS, EXIT_FAILED = 0, 1, 2


def main(arguments=None):
    """Audit the models in files and print what was found.

    Args:
        arguments: List of strings. Defaults to `None`, those of the command line.

    Returns:
        `0` if nothing was found, `1` if something was, `2` if a file or a module
        could not be read.
    """
    options = _parser().parse_args(arguments)
    files = [*dict.fromkeys(options.files)]
    faults = {file: fault for file in files if (fault := fault_of(file))}
    for file, fault in faults.items():
        _complain(file, fault)
    found = {}
    try:
        names = _start(options.imports) if len(faults) < len(files) else {}
    except _Failure as error:
        _complain(*error.args)
        return EXIT_FAILED
    for file in files:
        if file in faults:
            continue
        try:
            found[file] = keras_l2reg.audit(_load(file, names))
        except _Failure as error:
            _complain(*error.args)
            continue
        if not options.json:
            print(f"{file}\n{found[file]}\n" if len(files) > 1 else found[file])
    if options.json:
        print(json.dumps(_records(found), indent=2))
    if len(found) < len(files):
        return EXIT_FAILED
    return EXIT_FINDINGS if any(found.values()) else EXIT_NONE


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_l2reg",
        description="Audit the weight penalties of saved Keras models.",
        epilog="Exit code: 0 nothing found, 1 findings, 2 something failed, such as a "
        "file that can't be read.",
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
        help="import a module with the models' custom layers first; may be repeated",
    )
    return parser


class _Failure(Exception):
    """What was foreseen to fail: what it is about, and why."""


def _start(modules):
    """Import Keras and then the modules; return what these define, by name."""
    with _without_native_noise():
        # On every backend, Keras imports it in the midst of reading a config.
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
        # Left out when Python imported the package to find this program.
        if not hasattr(keras_l2reg, "audit"):
            importlib.reload(keras_l2reg)
    names = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {_one_line(str(error))}"
            if name.endswith(".py"):
                reason += f". Give the name of the module: {name.removesuffix('.py')}"
            raise _Failure(f"--import {name}", reason) from error
        # Keras finds by itself only what is registered.
        names |= {
            key: value
            for key, value in vars(module).items()
            if f"{getattr(value, '__module__', '')}.".startswith(f"{name}.")
            and callable(value)
        }
    return names


@contextlib.contextmanager
def _without_native_noise():
    """Keep back what TensorFlow writes to stderr as it starts, unless that fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Some lines come before TensorFlow has read that, and past Python's own stderr.
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            noise.seek(0)
            os.write(stderr, noise.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _load(file, custom_objects):
    import keras

    try:
        with warnings.catch_warnings():
            # Of optimizer variables that don't fit; the audit does not need them.
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(file, custom_objects, safe_mode=True)
    except Exception as error:
        raise _Failure(file, _reason(error)) from error
    if not isinstance(model, keras.Model):
        raise _Failure(
            file,
            f"holds a {type(model).__name__}, not a model. Save the model that it is "
            "part of, or wrap it: `keras.Sequential([layer])`",
        )
    return model


def _reason(error):
    """Why Keras could not load a model, in one line, and what to do."""
    reason = _one_line(reason_of(error))
    if reason.startswith("Could not locate"):
        what = reason.partition(".")[0]
        return (
            f"{what}. Import the module that defines it: --import "
            f"{module_of(error) or 'MODULE'}"
        )
    risk, advice, _ = reason.partition(" If you trust")
    if advice:
        return (
            f"{risk} If you trust the file, load it in Python with `safe_mode=False`, "
            "and call `keras_l2reg.audit(model)` there."
        )
    return reason


def _one_line(text, longest=1000):
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _records(found):
    return [
        {"file": file, **dataclasses.asdict(finding)}
        for file, findings in found.items()
        for finding in findings
    ]


def _complain(about, why):
    print(f"keras_l2reg: {about}: {why}", file=sys.stderr)


def _run():
    """`main` as a program: its exit code is 2 for all that was not foreseen."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name in letters that the terminal lacks is printed with escapes.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
        sys.stdout.flush()
    except Exception as error:
        if not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        # What could not be written is not to be tried again at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


if __name__ == "__main__":
    sys.exit(_run())
