"""What Keras means when it can't restore a model: the reason, without the configs.

Keras puts the reason last, behind the config of each object around the one that it
could not restore, and names the outermost class first.

>>> text = "<class 'Sequential'> could not be deserialized. config={...}. "
>>> text += "Exception encountered: Could not locate class 'Mine'. Full object "
>>> reason_of(TypeError(text + "config: {'module': 'my_layers'}"))
"Could not locate class 'Mine'."
"""

import re

_CONFIG = "Full object config: "


def reason_of(error):
    """The last reason in an error of Keras' deserialization, in one line.

    The whole text of any other error.
    """
    text = str(error) or type(error).__name__
    if "Exception encountered: " not in text and _CONFIG not in text:
        return text
    reason = text.rpartition("Exception encountered: ")[2].partition(_CONFIG)[0]
    return " ".join(reason.split())


def module_of(error):
    """The module of the class or function that Keras could not locate, or `None`.

    >>> module_of(TypeError("... Full object config: {'module': 'my_layers'}"))
    'my_layers'
    """
    config = str(error).rpartition("Exception encountered: ")[2].partition(_CONFIG)[2]
    module = re.search(r"'module': '([\w.]+)'", config)
    known = module and module[1] not in ("builtins", "__main__")
    return module[1] if known else None
