"""Sphinx settings, and the directive that documents a package by its ``__all__``."""

from __future__ import annotations

import importlib
import inspect
from typing import ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import aerogel

project = "Aerogel"
author = "The Aerogel authors"
copyright = "The Aerogel authors, Apache-2.0"
release = version = aerogel.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"Aerogel {release}"
html_copy_source = False
html_show_sphinx = False


class PublicNames(SphinxDirective):
    """Document every name in a package's ``__all__``, so that no list is kept by hand."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        """Write one autodoc directive per public class and function."""
        package = importlib.import_module(self.arguments[0])
        lines: list[str] = []
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value):
                lines += [f".. autoclass:: {package.__name__}.{name}", "   :members:", ""]
            elif inspect.isroutine(value):
                lines += [f".. autofunction:: {package.__name__}.{name}", ""]
        return self.parse_text_to_nodes(StringList(lines, source=package.__name__))


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("public-names", PublicNames)
