"""Fields of a JSON document, read one by one and checked; what is wrong is named by its path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from otel_mlmon.profile.document import ProfileError

MAX_TEXT: Final = 1_000  # characters of a name, a category, a note
MAX_COUNT: Final = 2**53  # of values; exact in every JSON reader


class Fields:
    """A JSON object that is being read: every field is asked for once, what nobody asked for is refused."""

    def __init__(self, fields: Mapping[str, Any], path: str, *known: str) -> None:
        self.fields = fields
        self.path = path
        self._read = set(known)

    def at(self, key: str) -> str:
        """Path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str) -> Any:
        """Its value, whatever it is; it must be there."""
        if key not in self.fields:
            raise ProfileError(f"{self.at(key)}: missing")
        self._read.add(key)
        return self.fields[key]

    def close(self) -> None:
        """Refuse what nobody asked for."""
        for key in self.fields:
            if key not in self._read:
                raise ProfileError(f"{self.at(key)}: unknown field; known are {', '.join(sorted(self._read))}")

    def text(self, key: str, *, empty: bool = True, most: int = MAX_TEXT) -> str:
        """A string."""
        return check_text(self.take(key), self.at(key), empty=empty, most=most)

    def choice(self, key: str, allowed: tuple[Any, ...]) -> Any:
        """One of some strings."""
        value = self.take(key)
        if not isinstance(value, str) or value not in allowed:
            fail(self.at(key), f"one of {', '.join(allowed)}", value)
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            fail(self.at(key), "true or false", value)
        return value

    def count(self, key: str) -> int:
        """A whole number, not negative."""
        return check_count(self.take(key), self.at(key))

    def number(self, key: str, *, negative: bool = True) -> float:
        """A finite number."""
        return check_number(self.take(key), self.at(key), negative=negative)

    def optional(self, key: str, *, negative: bool = True) -> float | None:
        """A finite number or null."""
        return None if self.take(key) is None else self.number(key, negative=negative)

    def items(self, key: str, most: int) -> list[Any]:
        """A list."""
        value = self.take(key)
        if not isinstance(value, list) or len(value) > most:
            size = f"a list of {len(value)}" if isinstance(value, list) else value
            fail(self.at(key), f"a list of at most {most}", size)
        return value

    def texts(self, key: str, most: int) -> list[str]:
        """A list of strings."""
        return [check_text(item, f"{self.at(key)}[{i}]") for i, item in enumerate(self.items(key, most))]

    def object(self, key: str, free: int = 0) -> Fields:
        """An object; `free` says how many fields of any name it may have."""
        value = self.take(key)
        if not isinstance(value, dict) or (free and len(value) > free):
            fail(self.at(key), f"an object of at most {free} fields" if free else "an object", value)
        return Fields(value, self.at(key))

    def objects(self, key: str, most: int) -> list[tuple[Any, str]]:
        """The items of a list, each with its path."""
        return [(item, f"{self.at(key)}[{i}]") for i, item in enumerate(self.items(key, most))]


def check_text(value: Any, path: str, *, empty: bool = True, most: int = MAX_TEXT) -> str:
    """A string of at most `most` characters."""
    if not isinstance(value, str) or len(value) > most or (not value and not empty):
        fail(path, f"a text of {'at most' if empty else '1 to'} {most} characters", value)
    if not is_unicode(value):
        fail(path, "valid Unicode", value)
    return value


def check_count(value: Any, path: str) -> int:
    """A whole number from 0 to MAX_COUNT."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        fail(path, "a whole number from 0 to 2^53", value)
    return value


def check_number(value: Any, path: str, *, negative: bool = True) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        fail(path, "a number", value)
    number = float(value) if abs(value) < 2**1024 else math.inf
    if not math.isfinite(number) or (number < 0 and not negative):
        fail(path, "a finite number" if negative else "a finite number >= 0", value)
    return number


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8; lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fail(path: str, allowed: str, got: Any) -> NoReturn:
    """Refuse a value."""
    raise ProfileError(f"{path}: must be {allowed}, got {show(got)}")


def show(value: Any) -> str:
    """A value as it is quoted in messages."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
