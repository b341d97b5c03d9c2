# SPDX-License-Identifier: Apache-2.0
"""Everything below the application is killed (keeper, plugin, workers) and started again: how long until the first good
read in each of 1, 10 and 100 running containers; beside what is common today, a FUSE mount whose daemon is started again
and bound to the same place, with propagation into the containers, by a loop that looks every 5 s.

HOLDFAST_HEAL_ROUNDS       healings of each row, the median is shown (11)
HOLDFAST_HEAL_CONTAINERS   "1,10,100"
"""

import ctypes
import os
import pathlib
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
LIMIT_S = 60
CLONE_NEWNS = 0x00020000
MS_SHARED, MS_REC, MS_BIND, MNT_DETACH = 1 << 20, 1 << 14, 1 << 12, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Reader:
    """A process in a container's mount namespace. Each time it is told to, it reads until that works, and says when it
    did."""

    def __init__(self, pid, path):
        down, self.write_fd = os.pipe()
        self.read_fd, up = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.write_fd)
            with open(f"/proc/{pid}/ns/mnt") as ns:
                _libc.setns(ns.fileno(), CLONE_NEWNS)
            while os.read(down, 1):
                os.write(up, b"%d\n" % self.read(path))
            os._exit(0)
        os.close(down)
        os.close(up)

    @staticmethod
    def read(path):
        while True:
            try:
                with open(path, "rb") as f:
                    if f.read():
                        return time.monotonic_ns()
            except OSError:
                time.sleep(0.002)

    def go(self):
        os.write(self.write_fd, b"x")

    def when(self):
        ready, _, _ = select.select([self.read_fd], [], [], LIMIT_S)
        if not ready:
            raise AssertionError(f"no good read within {LIMIT_S} s")
        return int(os.read(self.read_fd, 64))

    def close(self):
        os.close(self.write_fd)
        os.waitpid(self.pid, 0)


class Containers:
    """Some that have `target` mounted, each with a reader."""

    def __init__(self, node, target, count, options):
        self.all = [Container(node, {"/data": (target, options)}) for _ in range(count)]
        self.readers = [Reader(c.pid, "/data/f") for c in self.all]

    def all_read(self):
        """When the last of them had read well; they begin now."""
        for reader in self.readers:
            reader.go()
        return max(reader.when() for reader in self.readers)

    def close(self):
        for reader in self.readers:
            reader.close()
        for container in self.all:
            container.remove()


def ours(node, count):
    """Milliseconds of each round: from the restart of the two daemons to the last container's read."""
    target = node.volume("data", node.sources / "data", **READ_WRITE).up()
    containers, found = Containers(node, target, count, ["rprivate"]), []
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
        time.sleep(0.5)
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
                self.start()  # on top, as the loops of today do

    def close(self):
        self.ended.set()
        self.loop.join()
        while pathlib.Path(self.place).is_mount() or os.path.ismount(self.place):
            _libc.umount2(str(self.place).encode(), MNT_DETACH)
        _libc.umount2(str(self.place.parent).encode(), MNT_DETACH)


def peer(node, count):
    bindfs = Peer(node)
    containers, found = Containers(node, bindfs.place.parent, count, ["rslave"]), []
    for reader in containers.readers:
        reader.close()
    containers.readers = [Reader(c.pid, "/data/volume/f") for c in containers.all]
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
