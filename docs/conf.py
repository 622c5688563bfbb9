"""Configuration of the documentation's build."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "_ext")]

import gearman_pool  # noqa: E402 - found through the path above

project = "gearman_pool"
author = "gearman_pool contributors"
project_copyright = "gearman_pool contributors"
release = version = gearman_pool.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "job_way", "state_machines"]
default_role = "py:obj"
html_theme = "alabaster"
html_theme_options = {"description": "A Gearman client for Python web applications", "page_width": "1100px"}
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
exclude_patterns = ["examples"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
