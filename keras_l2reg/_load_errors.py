"""The reason why Keras could not load a model, extracted from its error message.

Keras names the outermost object first. The reason comes last, after the configs of all
objects that contain the one that could not be deserialized.

>>> text = "<class 'Sequential'> could not be deserialized. config={...}. "
>>> text += "Exception encountered: Could not locate class 'Mine'. Full object "
>>> reason_of(TypeError(text + "config: {'module': 'my_layers'}"))
"Could not locate class 'Mine'."
"""

import re

_CONFIG = "Full object config: "


def reason_of(error: BaseException) -> str:
    """The innermost reason in a load error of Keras; the text of any other error.

    >>> reason_of(ValueError("Expected a file."))
    'Expected a file.'
    """
    text = str(error) or type(error).__name__
    if "Exception encountered: " not in text and _CONFIG not in text:
        return text
    reason = text.rpartition("Exception encountered: ")[2].partition(_CONFIG)[0]
    return " ".join(reason.split())


def module_of(error: BaseException) -> str | None:
    """The module of the class or function that Keras could not locate, or `None`.

    >>> module_of(TypeError("... Full object config: {'module': 'my_layers'}"))
    'my_layers'
    """
    config = str(error).rpartition("Exception encountered: ")[2].partition(_CONFIG)[2]
    module = re.search(r"'module': '([\w.]+)'", config)
    if module is None or module[1] in ("builtins", "__main__"):
        return None
    return module[1]
