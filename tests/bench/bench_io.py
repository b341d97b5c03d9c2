# SPDX-License-Identifier: Apache-2.0
"""fio: 1 MiB sequential and 4 KiB random reads and writes, hot and cold; native, passthrough, worker mode, bindfs."""

import json
import subprocess

from common import Contenders, READ_WRITE, drop_caches, new_node, rates_as_cells, say, table

SIZE = "1g"
SECONDS = 3
PATTERNS = {  # name: (fio's rw, block size)
    "1 MiB sequential read": ("read", "1m"),
    "4 KiB random read": ("randread", "4k"),
    "1 MiB sequential write": ("write", "1m"),
    "4 KiB random write": ("randwrite", "4k"),
}


def fio(path, rw, block, hot):
    # --invalidate=0: fio drops the page cache of a native file by default, and cannot drop that of a FUSE file's source
    # hot: over and over in the page cache for SECONDS; cold: the file once, or as much of it as SECONDS allow
    out = subprocess.run(
        ["fio", "--name=b", f"--filename={path}/big", f"--rw={rw}", f"--bs={block}", f"--size={SIZE}", "--ioengine=psync",
         "--invalidate=0", f"--runtime={SECONDS}", *(["--time_based"] if hot else []), "--output-format=json",
         "--norandommap", "--randrepeat=0", "--fallocate=none"],
        check=True, capture_output=True, text=True).stdout
    job = json.loads(out)["jobs"][0]
    return job["read" if "read" in rw else "write"]["bw_bytes"] / (1 << 20)


def warm(path):
    subprocess.run(["cat", f"{path}/big"], stdout=subprocess.DEVNULL, check=True)


def main():
    node = new_node()
    try:
        source = node.make_source("big")
        subprocess.run(["dd", "if=/dev/urandom", f"of={source}/big", "bs=1M", "count=1024", "status=none"], check=True)
        contenders = Contenders(node, source, {
            "passthrough": READ_WRITE,
            "worker mode": {**READ_WRITE, "attributes": {"mode": "worker"}},
        })
        rows = {}
        for name, (rw, block) in PATTERNS.items():
            for state in ("hot", "cold"):
                if state == "cold" and "write" in rw:
                    continue  # a write has nothing to be cold about: it goes to the page cache either way
                medians = contenders.measure(lambda path: fio(path, rw, block, state == "hot"), rounds=3,
                                             before=warm if state == "hot" else lambda path: drop_caches())
                rows[f"{name}, {state}"] = rates_as_cells(medians)
                say(f"  measured: {name}, {state}")
        table(f"fio, one job, psync, {SIZE} file, medians of 3 (ratio: rate / native rate)", list(contenders.paths), rows)
        contenders.close()
    finally:
        node.close()


if __name__ == "__main__":
    main()
