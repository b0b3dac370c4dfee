"""Changes of a document (JSON, YAML) as a whole: what is changed byte by byte is seldom a document still."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import yaml
from otel_mlmon_processor.config import Config

VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2, 24, 168, 0.5, -0.0, 1e308, -1e308, 5e-324, 2**31, 2**53, 2**53 + 1, 2**63, 2**64),
    *(10**400, "", "x", "a.b", "\ud800", "\x00", "\u202e", "1" * 1_001, "0s", "1e9d", "[::]:1", "0.0.0.0:99999"),
    *("numeric", "category", "float", "feature", "score", "age", "http", "gzip", "off", "2030-01-01", "AAAA"),
    *([], {}, [[]], [0], [0.0, 1.0], {"": 0}, {"a": {"b": [1]}}),
)
PACKED: Final = "packed"  # of a profile: base64 of zlib
_SECTIONS: Final = Config.model_json_schema()
KEYS: Final = sorted({key for part in (_SECTIONS, *_SECTIONS["$defs"].values()) for key in part.get("properties", ())})


def _read_settings(data: bytes) -> Any:
    try:
        return json.loads(data)  # what has been changed before; ten times as fast
    except ValueError:
        return yaml.load(data, Loader=yaml.CSafeLoader)


READ: Final[dict[str, Callable[[bytes], Any]]] = {"profile": json.loads, "config": _read_settings}


def change_document(target: str, data: bytes, most: int, random: Random) -> bytes | None:
    """The document with one to four places changed; None where it is none, or becomes too long."""
    try:
        document = READ[target](data)
        for _ in range(random.randint(1, 4)):
            places = list(_list_places(document))
            if places:
                _change(*random.choice(places), document, random)
        changed = json.dumps(document, default=str).encode()  # which YAML can read too
    except (ValueError, TypeError, RecursionError, OverflowError, yaml.YAMLError, zlib.error):
        return None
    return changed if len(changed) <= most else None


def _list_places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Containers with a key or place in them."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _list_places(node[key])


def _change(node: Any, key: Any, document: Any, random: Random) -> None:
    value = node[key]
    if key == PACKED and isinstance(value, str) and random.random() < 0.8:
        node[key] = _repack(value, random)
        return
    action = random.randrange(6)
    if action == 0:
        node[key] = random.choice(VALUES)
    elif action == 1:
        del node[key]
    elif action == 2:
        other, place = random.choice(list(_list_places(document)))
        node[key] = json.loads(json.dumps(other[place], default=str))
    elif action == 3 and isinstance(value, (int, float)):
        node[key] = random.choice((value + 1, value - 1, -value, value * 2, value / 3, int(value)))
    elif action == 4 and isinstance(node, list):
        node.insert(random.randrange(len(node) + 1), value)
    elif action == 4:
        node[random.choice(KEYS)] = random.choice(VALUES)
    else:
        node[key] = [value] if random.random() < 0.5 else {random.choice(KEYS): value}


def _repack(text: str, random: Random) -> str:
    data = bytearray(zlib.decompress(base64.b64decode(text)))
    if data:
        at = random.randrange(len(data))
        data[at : at + 4] = random.choice((b"\xff" * 4, bytes(4), b"\x01", b"", b"\xff\xff\xff\x7f"))
    return base64.b64encode(zlib.compress(bytes(data))).decode()
