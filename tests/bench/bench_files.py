# SPDX-License-Identifier: Apache-2.0
"""Small files: open+read+close of 20,000 files of 16 KiB; stat and readdir of 100,000 files in 100 directories."""

import os
import subprocess

from common import Contenders, IMMUTABLE, READ_ONLY, ROUNDS, drop_caches, new_node, table, times_as_cells

FILES, FILE_SIZE = 20_000, 16 << 10
TREE_DIRECTORIES, TREE_FILES = 100, 1_000


def files(mode, path, threads=1):
    out = subprocess.run([os.environ["BENCH_FILES"], mode, str(path), str(threads)], check=True, capture_output=True,
                         text=True).stdout
    return float(out)


def make_small_files(node):
    source = node.make_source("small")
    content = os.urandom(FILE_SIZE)
    for d in range(20):
        (source / f"d{d:02}").mkdir()
    for i in range(FILES):
        (source / f"d{i % 20:02}" / f"f{i:05}").write_bytes(content)
    return source


def make_tree(node):
    source = node.make_source("tree")
    for d in range(TREE_DIRECTORIES):
        directory = source / f"d{d:03}"
        directory.mkdir()
        for i in range(TREE_FILES):
            (directory / f"f{i:04}").touch()
    return source


def rows_for(contenders, cases):
    rows = {}
    for name, (mode, threads, cold) in cases.items():
        def before(path):
            drop_caches() if cold else files(mode, path, threads)
        medians = contenders.measure(lambda path: files(mode, path, threads), before=before, rounds=3 if cold else ROUNDS)
        rows[name] = times_as_cells(medians)
    return rows


def run(node, title, make, cases):
    contenders = Contenders(node, make(node), {"upcall-free": IMMUTABLE, "passthrough": READ_ONLY})
    table(title, list(contenders.paths), rows_for(contenders, cases))
    contenders.close()


def main():
    node = new_node()
    try:
        run(node, f"open+read+close of {FILES} files of {FILE_SIZE >> 10} KiB (ratio: native time / time)", make_small_files, {
            "hot, 1 thread": ("read", 1, False),
            "hot, 4 threads": ("read", 4, False),
            "cold, 1 thread": ("read", 1, True),
            "cold, 4 threads": ("read", 4, True),
        })
        run(node, f"a tree of {TREE_DIRECTORIES * TREE_FILES} files (ratio: native time / time)", make_tree, {
            "stat, hot": ("stat", 1, False),
            "readdir, hot": ("readdir", 1, False),
            "stat, cold": ("stat", 1, True),
        })
    finally:
        node.close()


if __name__ == "__main__":
    main()
