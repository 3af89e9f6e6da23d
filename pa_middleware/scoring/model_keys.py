"""What tells one model of this process from another, as a word that fits into a message."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import uuid4
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_keys: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
_lock = threading.Lock()


def model_key(model: PreTrainedModel) -> str:
    """The same for this very object at every call, and for no other; another one in the next process."""
    with _lock:
        return _keys.setdefault(model, f"local-{uuid4().hex}")
