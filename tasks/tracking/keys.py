"""Names as keys of MLflow: of metrics, parameters and tags. Two different names never share a key.

MLflow takes letters, digits, `_`, `-`, `.`, blanks and `/`, up to 250 characters, as long as the key is a path in its
shortest form. A name that keeps to this is its own key. In any other each sign that is refused becomes `_x28_`, its number
in hexadecimal (as in Office Open XML), and a key that would be too long ends in a hash of the name.
"""

import hashlib
import posixpath
import re

LONGEST = 250  # characters of a key
HASH = "_x{}_"
HASHED = re.compile(r"x[0-9a-f]{32}_\Z")  # what no other key ends in


def make_key(name: str) -> str:
    """Return the key of a name such as `test_recall_<class>`."""
    key = _escape(name, r"\w./ -")
    if posixpath.normpath(key) != key or key.startswith((".", "/")):
        key = _escape(name, r"\w -")
    if len(key) <= LONGEST and not HASHED.search(key):
        return key
    end = HASH.format(hashlib.sha256(name.encode()).hexdigest()[:32])
    return key[: LONGEST - len(end)] + end


def _escape(name: str, taken: str) -> str:
    """Escape what is not among the `taken` signs, and each underscore that would look like the begin of an escaped sign."""
    refused = rf"[^{taken}]|_(?=x[0-9a-f]+(?:_|[^{taken}]))"
    return re.sub(refused, lambda found: f"_x{ord(found[0]):x}_", name)
