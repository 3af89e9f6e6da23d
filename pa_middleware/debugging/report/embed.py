"""Values as text for a `<script>` of data in an HTML page: it can neither end the element nor open another."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


class NotFiniteError(ValueError):
    """JSON has no word for NaN and infinity."""


def plain(value: Any) -> str:
    """JSON in ASCII without `<`, `>` and `&`; lone surrogates and line separators are escaped as well.

    Raises NotFiniteError for NaN and infinity.
    """
    return _json(value).translate(_ESCAPES)


def packed(value: Any) -> str:
    """JSON, compressed (zlib) and in base64: a twentieth of the size, and read only when it is asked for.

    Raises NotFiniteError for NaN and infinity.
    """
    return base64.b64encode(zlib.compress(_json(value).encode("ascii"), 6)).decode("ascii")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise NotFiniteError(str(error)) from error
