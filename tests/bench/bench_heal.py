# SPDX-License-Identifier: Apache-2.0
"""Everything below the application is killed (keeper, plugin, workers) and started again: how long until the first good
read in each of 1, 10 and 100 running containers; beside what is common today, a FUSE mount whose daemon is started again
and bound to the same place, with propagation into the containers, by a loop that looks every 5 s.

HOLDFAST_HEAL_ROUNDS       healings of each row, the median is shown (11)
HOLDFAST_HEAL_CONTAINERS   "1,10,100"
"""

import ctypes
import os
import select
import signal
import statistics
import subprocess
import sys
import threading
import time

from common import HERE, READ_WRITE, new_node, say, table

sys.path.insert(0, str(HERE.parent / "functional"))

from container import Container  # noqa: E402

ROUNDS = int(os.environ.get("HOLDFAST_HEAL_ROUNDS", "11"))
COUNTS = [int(n) for n in os.environ.get("HOLDFAST_HEAL_CONTAINERS", "1,10,100").split(",")]
PEER_ROUNDS, POLL_S = 5, 5.0
LIMIT_S, CALM_S = 60, 0.5
MS_SHARED, MS_BIND, MNT_DETACH = 1 << 20, 1 << 12, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Containers:
    """Some that have `target` mounted at /data, with a reader of `path` in each."""

    def __init__(self, node, target, count, options, path):
        self.all = [Container(node, {"/data": (target, options)}, propagation=options[0]) for _ in range(count)]
        self.readers = subprocess.Popen([sys.executable, HERE / "readers.py", path, *(str(c.pid) for c in self.all)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def all_read(self):
        """When the last of them had read well; they begin now."""
        self.readers.stdin.write("go\n")
        self.readers.stdin.flush()
        if not select.select([self.readers.stdout], [], [], LIMIT_S)[0]:
            raise AssertionError(f"no good read within {LIMIT_S} s")
        return int(self.readers.stdout.readline())

    def close(self):
        self.readers.stdin.close()
        self.readers.wait()
        for container in self.all:
            container.remove()


def ours(node, count):
    """Milliseconds of each round: from the restart of the two daemons to the last container's read."""
    target = node.volume("data", node.sources / "data", **READ_WRITE).up()
    containers, found = Containers(node, target, count, ["rprivate"], "/data/f"), []
    containers.all_read()
    for _ in range(ROUNDS):
        workers = node.workers()
        node.plugin.kill()
        node.keeper.kill()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        begin = time.monotonic_ns()
        node.keeper.start()
        node.plugin.start()
        found.append((containers.all_read() - begin) / 1e6)
        time.sleep(CALM_S)
    containers.close()
    node.volume("data", node.sources / "data", **READ_WRITE).down()
    return found


class Peer:
    """bindfs below a shared directory, and the loop."""

    def __init__(self, node):
        self.source = node.sources / "data"
        self.place = node.base / "shared" / "volume"
        self.place.parent.mkdir()
        self.mount(self.place.parent, MS_BIND)
        self.mount(self.place.parent, MS_SHARED)
        self.place.mkdir()
        self.start()
        self.ended = threading.Event()
        self.loop = threading.Thread(target=self.watch)
        self.loop.start()

    @staticmethod
    def mount(path, flags):
        if _libc.mount(str(path).encode(), str(path).encode(), None, flags, None):
            raise OSError(ctypes.get_errno(), f"mount {path}")

    def start(self):
        subprocess.run(["bindfs", self.source, self.place], check=True)

    def daemon(self):
        return int(subprocess.run(["pgrep", "-f", f"bindfs .*{self.place}"], check=True, capture_output=True,
                                  text=True).stdout.split()[0])

    def watch(self):
        while not self.ended.wait(POLL_S):
            try:
                os.stat(self.place)
            except OSError:
                _libc.umount2(str(self.place).encode(), MNT_DETACH)
                self.start()

    def close(self):
        self.ended.set()
        self.loop.join()
        while _libc.umount2(str(self.place).encode(), MNT_DETACH) == 0:
            pass
        _libc.umount2(str(self.place.parent).encode(), MNT_DETACH)


def peer(node, count):
    bindfs = Peer(node)
    containers, found = Containers(node, bindfs.place.parent, count, ["rslave"], "/data/volume/f"), []
    containers.all_read()
    for i in range(PEER_ROUNDS):
        time.sleep(i * POLL_S / PEER_ROUNDS)  # anywhere between two looks
        os.kill(bindfs.daemon(), signal.SIGKILL)
        begin = time.monotonic_ns()
        found.append((containers.all_read() - begin) / 1e6)
    containers.close()
    bindfs.close()
    return found


def row(found):
    return {"median": (statistics.median(found), "ms", None), "max": (max(found), "ms", None)}


def main():
    rows = {}
    for count in COUNTS:
        node = new_node()
        try:
            node.make_source("data", {"f": "hello"})
            rows[f"{count} containers, all killed, from the restart"] = row(ours(node, count))
            if count == min(COUNTS):
                rows[f"{count} containers, bind with propagation, looked at every {POLL_S:.0f} s"] = row(peer(node, count))
        finally:
            node.close()
    table("until the first good read in all", ["median", "max"], rows)
    say()


if __name__ == "__main__":
    main()
