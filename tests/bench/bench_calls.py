# SPDX-License-Identifier: Apache-2.0
"""Latency of stage+publish and unpublish+unstage beside 1, 100 and 1,000 volumes, and what the processes weigh (PSS)."""

import pathlib
import re
import statistics
import time

from common import READ_ONLY, new_node, say, table

COUNTS = (1, 100, 1000)
SAMPLES = 200


def pss_mib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1)) / 1024


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


def timed(call):
    begin = time.monotonic()
    call()
    return (time.monotonic() - begin) * 1000


def measure(node, source):
    up, down = [], []
    for i in range(SAMPLES):
        volume = node.volume(f"sample-{i}", source, **READ_ONLY)
        volume.staging.mkdir(parents=True, exist_ok=True)
        volume.target().parent.mkdir(parents=True, exist_ok=True)
        up.append(timed(lambda: (volume.stage(), volume.publish())))
        down.append(timed(lambda: (volume.unpublish(), volume.unstage())))
    return up, down


def main():
    node = new_node()
    stub = node.rpc()
    node.rpc = lambda: stub  # one connection: a thousand idle ones weigh as much as the volumes
    try:
        source = node.make_source("data", {"file": "x" * 100})
        volumes, rows, weights = [], {}, {}
        for count in COUNTS:
            while len(volumes) < count:
                volume = node.volume(f"volume-{len(volumes)}", source, **READ_ONLY)
                volume.up()
                volumes.append(volume)
            up, down = measure(node, source)
            rows[f"{count} volumes"] = {
                "stage+publish p50": (statistics.median(up), "ms", None), "p99": (percentile(up, 99), "ms", None),
                "unpublish+unstage p50": (statistics.median(down), "ms", None), "p99 ": (percentile(down, 99), "ms", None)}
            workers = [pss_mib(pid) for pid in node.workers()]
            weights[f"{count} volumes"] = {
                "plugin": (pss_mib(node.plugin.pid), "MiB", None), "keeper": (pss_mib(node.keeper.pid), "MiB", None),
                "a worker (median)": (statistics.median(workers), "MiB", None), "all workers": (sum(workers), "MiB", None)}
            say(f"  measured: {count} volumes")
        table(f"latency seen by a gRPC client in Python on one connection, {SAMPLES} samples", list(rows["1 volumes"]), rows)
        table("memory (PSS)", list(weights["1 volumes"]), weights)
        for volume in volumes:
            volume.down()
    finally:
        node.close()


if __name__ == "__main__":
    main()
