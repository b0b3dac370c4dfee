"""Where a document is left on a model, and found again."""

from __future__ import annotations

from typing import Any

from otel_mlmon.profile.document import ATTRIBUTE


def attach_text(model: Any, text: str) -> None:
    """Leave the text on the model; on an XGBoost model also in the booster, where `save_model` keeps it.

    Raises:
        TypeError: the object takes no attributes.
    """
    booster = _booster(model)
    if booster is not None:
        booster.set_attr(**{ATTRIBUTE: text})
    try:  # on a booster too: instrumentation looks only there for a change
        setattr(model, ATTRIBUTE, text)
    except (AttributeError, TypeError) as error:
        raise TypeError(
            f"a profile cannot be attached to {type(model).__name__}: it takes no attributes; save it to a file instead"
        ) from error


def read_text(model: Any) -> str | None:
    """The text left on the model; None where there is none.

    Only the object's own attributes are looked at: `__getattr__` of proxies and mocks answers to anything.
    """
    text = getattr(model, "__dict__", {}).get(ATTRIBUTE)
    if text is None:
        booster = _booster(model)
        text = booster.attr(ATTRIBUTE) if booster is not None else None
    return text if isinstance(text, str) else None


def _booster(model: Any) -> Any:
    """The XGBoost Booster that a model is or holds; None where there is none (yet)."""
    if not any(base.__module__.split(".")[0] == "xgboost" for base in type(model).__mro__):
        return None
    if hasattr(model, "set_attr"):
        return model
    fitted = getattr(model, "__sklearn_is_fitted__", None)
    return model.get_booster() if fitted is not None and fitted() else None
