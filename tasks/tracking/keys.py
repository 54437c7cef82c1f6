"""Turn names into keys of MLflow's metrics, parameters and tags. No two names share a key.

MLflow accepts letters, digits, `_`, `-`, `.`, spaces and `/`, at most 250 characters, and the key
must be a normalized path. A name that follows these rules is its own key. In other names each
refused character becomes its code point in hexadecimal, such as `_x28_` (as in Office Open XML).
A key that would be too long is cut, and ends in a hash of the name.
"""

import hashlib
import posixpath
import re

LONGEST = 250  # characters of a key
HASH = "_x{}_"
HASHED = re.compile(r"x[0-9a-f]{32}_\Z")  # only a key with a hash ends like this


def make_key(name: str) -> str:
    """Return the key of a name such as `test_recall_<class>`."""
    key = _escape(name, r"\w./ -")
    if posixpath.normpath(key) != key or key.startswith((".", "/")):
        key = _escape(name, r"\w -")
    if len(key) <= LONGEST and not HASHED.search(key):
        return key
    end = HASH.format(hashlib.sha256(name.encode()).hexdigest()[:32])
    return key[: LONGEST - len(end)] + end


def _escape(name: str, accepted: str) -> str:
    """Escape all characters that are not `accepted`.

    An underscore that looks like the start of an escaped character is escaped too.
    """
    refused = rf"[^{accepted}]|_(?=x[0-9a-f]+(?:_|[^{accepted}]))"
    return re.sub(refused, lambda found: f"_x{ord(found[0]):x}_", name)
