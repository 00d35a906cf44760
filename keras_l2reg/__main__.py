"""`python -m keras_l2reg FILE.keras`: the audit of a saved model."""

import argparse
import dataclasses
import json
import os
import sys
import warnings
import zipfile

import keras

from keras_l2reg.audit import audit

EXIT_NONE, EXIT_FINDINGS, EXIT_UNREADABLE = 0, 1, 2


def main(arguments=None):
    """Audit the model in a file and print what was found.

    Args:
        arguments: List of strings. Defaults to `None`, those of the command line.

    Returns:
        `0` if nothing was found, `1` if something was, `2` for an unreadable file.
    """
    options = _parser().parse_args(arguments)
    try:
        model = _load(options.file)
    except Exception as error:
        print(f"keras_l2reg: {options.file}: {_one_line(error)}", file=sys.stderr)
        return EXIT_UNREADABLE
    findings = audit(model)
    if options.json:
        print(json.dumps([dataclasses.asdict(f) for f in findings], indent=2))
    else:
        print(findings)
    return EXIT_FINDINGS if findings else EXIT_NONE


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_l2reg",
        description="Audit the weight penalties of a saved Keras model.",
        epilog="Exit code: 0 nothing found, 1 findings, 2 the file can't be read.",
    )
    parser.add_argument("file", metavar="FILE.keras", help="a model saved by Keras 3")
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    return parser


def _load(path):
    if not os.path.exists(path):
        raise ValueError("no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError("not a .keras file, or a truncated one")
    with warnings.catch_warnings():
        # Of optimizer variables that don't fit; the audit does not need them.
        warnings.simplefilter("ignore")
        return keras.saving.load_model(path, safe_mode=True)


def _one_line(error):
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


if __name__ == "__main__":
    sys.exit(main())
