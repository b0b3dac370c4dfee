"""What was imported where a profile was built."""

from __future__ import annotations

import platform
import sys
from typing import Final

PACKAGES: Final = {  # modules whose version is noted where they are imported, with the names they are installed by
    "catboost": "catboost",
    "keras": "keras",
    "lightgbm": "lightgbm",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "xgboost": "xgboost",
}


def list_packages() -> dict[str, str]:
    """Versions of Python and of the packages that make models, where they are imported."""
    found = {name: getattr(sys.modules.get(module), "__version__", None) for module, name in PACKAGES.items()}
    return {
        "python": platform.python_version(),
        **{name: text for name, text in found.items() if isinstance(text, str)},
    }
