# SPDX-License-Identifier: Apache-2.0
"""Files whose content follows from their names: made once in the source, verified by anybody who knows the name."""

import functools
import os
import random

BIG = {f"big{i}": 6 << 20 for i in range(3)}
SMALL = {f"d{i % 12:02}/f{i:04}": 200 + i * 97 % 16000 for i in range(360)}
LISTED = [f"entry-{i:05}" for i in range(3000)]


@functools.lru_cache(maxsize=1000)
def content(name, size):
    return random.Random(name).randbytes(size)


def make(source):
    """The data set in a source directory."""
    for folder, files in (("big", BIG), ("small", SMALL)):
        for name, size in files.items():
            path = os.path.join(source, folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(content(name, size))
    os.makedirs(os.path.join(source, "listed"))
    for name in LISTED:
        os.close(os.open(os.path.join(source, "listed", name), os.O_CREAT | os.O_WRONLY, 0o644))
