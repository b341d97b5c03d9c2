# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: a node, the peers beside it, rounds that take turns, and tables with ratios.

Every figure is a median over rounds; in each round every contender runs once, so that a slow moment of the machine hits all of
them. HOLDFAST_BENCH_DIR names a directory on the disk to measure (default /var/tmp), HOLDFAST_BENCH_ROUNDS the rounds.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "functional"))

import stubs  # noqa: E402

stubs.own_mount_namespace()
stubs.generate()

from harness import AccessMode, Node  # noqa: E402

BASE = os.environ.get("HOLDFAST_BENCH_DIR", "/var/tmp")
ROUNDS = int(os.environ.get("HOLDFAST_BENCH_ROUNDS", "5"))


def say(text=""):
    print(text, flush=True)


def new_node():
    return Node(pathlib.Path(tempfile.mkdtemp(prefix="hf-bench-", dir=BASE))).start()


def drop_caches():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


class Contenders:
    """The same source, seen natively, through Holdfast in several ways, and through bindfs."""

    def __init__(self, node, source, volumes):
        self.node, self.source, self.paths, self.volumes = node, source, {"native": source}, []
        for label, keywords in volumes.items():
            volume = node.volume(label.replace(" ", "-"), source, **keywords)
            self.paths[label] = volume.up()
            self.volumes.append(volume)
        self.bindfs = node.base / "bindfs"
        self.bindfs.mkdir(exist_ok=True)
        subprocess.run(["bindfs", "--multithreaded", str(source), str(self.bindfs)], check=True)
        self.paths["bindfs"] = self.bindfs

    def close(self):
        subprocess.run(["umount", "--lazy", str(self.bindfs)], check=True)
        for volume in self.volumes:
            volume.down()

    def measure(self, run, rounds=ROUNDS, before=None):
        """{label: median of run(path)}; the rounds take turns."""
        figures = {label: [] for label in self.paths}
        for _ in range(rounds):
            for label, path in self.paths.items():
                if before:
                    before(path)
                figures[label].append(run(path))
        return {label: statistics.median(values) for label, values in figures.items()}


def table(title, columns, rows, note=""):
    """rows: {name: {column: (figure, unit, ratio or None)}}."""
    say(f"\n{title}")
    width = max(len(name) for name in rows) + 2
    say(" " * width + "".join(f"{c:>24}" for c in columns))
    for name, cells in rows.items():
        line = f"{name:<{width}}"
        for column in columns:
            figure, unit, ratio = cells[column]
            text = f"{figure:.4g} {unit}" + (f" ({ratio:.2f})" if ratio is not None else "")
            line += f"{text:>24}"
        say(line)
    if note:
        say(note)


def times_as_cells(medians):
    """Seconds, with native time / time as the ratio."""
    return {label: (s * 1000, "ms", medians["native"] / s) for label, s in medians.items()}


def rates_as_cells(medians):
    """MiB/s, with rate / native rate as the ratio."""
    return {label: (r, "MiB/s", r / medians["native"]) for label, r in medians.items()}


READ_ONLY = {"access": AccessMode.MULTI_NODE_READER_ONLY}
READ_WRITE = {"access": AccessMode.SINGLE_NODE_MULTI_WRITER}
IMMUTABLE = {"access": AccessMode.MULTI_NODE_READER_ONLY, "attributes": {"consistency": "immutable"}}
