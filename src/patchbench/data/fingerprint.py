"""placeholder until the branch `data` is merged."""

import hashlib
import os


def fingerprint(root: str) -> str:
    listing = []
    root = os.path.expanduser(root)
    os.stat(root)
    for folder, _, names in os.walk(root):
        listing += [
            (os.path.relpath(os.path.join(folder, n), root), os.stat(os.path.join(folder, n)).st_size) for n in names
        ]
    return hashlib.sha256(repr(sorted(listing)).encode()).hexdigest()[:8]
