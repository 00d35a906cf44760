"""What the package offers: the public names and modules, and nothing else."""

import inspect
import pathlib
import pkgutil
from importlib import metadata, resources

import pytest

import keras_l2reg

PUBLIC_MODULES = {
    "attachment",
    "callbacks",
    "schedulers",
    "models",
    "optimizers",
    "plotting",
    "regularizers",
    "testing",
    "weights",
}


@pytest.mark.parametrize("name", sorted(set(keras_l2reg.__all__) - {"__version__"}))
def test_a_public_name_is_a_documented_class_or_function(name):
    public = getattr(keras_l2reg, name)
    assert inspect.isclass(public) or inspect.isfunction(public)
    # Not `inspect.getdoc`, which also finds the docstring of a base class of Keras.
    assert public.__doc__
    assert public.__module__.startswith("keras_l2reg.")


def test_other_modules_than_the_public_ones_have_an_underscore():
    modules = {module.name for module in pkgutil.iter_modules(keras_l2reg.__path__)}
    assert {name for name in modules if not name.startswith("_")} == PUBLIC_MODULES


def test_the_package_is_typed_and_knows_its_version():
    assert resources.files(keras_l2reg).joinpath("py.typed").is_file()
    assert metadata.version("keras_l2reg") == keras_l2reg.__version__


def test_the_contributors_guide_names_every_module():
    folder = pathlib.Path(keras_l2reg.__file__).parent
    guide = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    tree = guide.partition("```text\nkeras_l2reg/\n")[2].partition("```")[0]
    assert sorted(modules_in(tree)) == sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        # What is said of these packages as a whole is enough.
        if path.parent.name not in ("_testing", "backends")
        and (path.name != "__init__.py" or path.parent == folder)
    )


def modules_in(tree):
    """The paths of the modules in a tree of names, indented by two spaces a level."""
    folders = []
    for line in tree.splitlines():
        level = (len(line) - len(line.lstrip())) // 2 - 1
        name = line.split()[0]
        folders = folders[:level]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            yield "/".join([*folders, name])
