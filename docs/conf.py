"""Sphinx configuration: `make docs` builds the site into `docs/_build`."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "collabteam"
author = "the collabteam authors"
copyright = "2026, the collabteam authors"
release = version = installed("collabteam")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Headings can be linked to from other pages.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
# Links to files of the repository are not pages of the site.
# A class may be reached through its package and its module; either link will do.
suppress_warnings = ["myst.xref_missing", "ref.python"]

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Optional packages need not be installed to document the modules that use them.
autodoc_mock_imports = ["boxmot", "nncf", "openvino", "trackers", "ultralytics", "wandb_workspaces"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False

html_theme = "furo"
html_title = "collabteam"
