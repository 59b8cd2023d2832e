"""Client order ids from intents.

An intent has one id for life, derived from what names it and nothing else: the log (its 16-byte id), the
strategy, and the caller's key, or the run and a number where the caller gives no key. The same intent after
a crash therefore gets the same client order id, and a venue that deduplicates sees one order. The id says
nothing about the order's content, so that a changed order under an old key is noticed, not resent.

    hf- + base32(SHA-256(0x00 || log id || 0x00 || strategy || 0x00 || key))[:26], lower case

26 characters carry 130 bits. The prefix marks an order as ours in the venue's books.
"""

from __future__ import annotations

import base64
import hashlib

OWN_PREFIX = "hf-"
MAX_INTENT_KEY = 200


def client_order_id(log_id: str, strategy: str, key: str) -> str:
    """The client order id of the intent that *key* names; 29 characters of [a-z2-7-]."""
    named = b"\x00" + b"\x00".join(part.encode() for part in (log_id, strategy, key))
    digest = hashlib.sha256(named).digest()
    return OWN_PREFIX + base64.b32encode(digest)[:26].decode().lower()


def is_own(order_id: str) -> bool:
    """Whether a client order id in the venue's books was made here."""
    return order_id.startswith(OWN_PREFIX)
