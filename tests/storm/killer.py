# SPDX-License-Identifier: Apache-2.0
"""Kills a volume's worker, its keeper, or both in turn, at random moments.

It runs in the thread that calls it, on purpose: a keeper dies with the thread that started it (PR_SET_PDEATHSIG).
"""

import os
import pathlib
import random
import signal
import time

VICTIMS = ("worker", "keeper", "alternate")
FUSE_DEVICE = "/dev/fuse"
DEVICE_FD = 3
WORKER_LIMIT_S = 20


def _comm(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(pid):
    try:
        return [int(child) for task in os.listdir(f"/proc/{pid}/task")
                for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _has_device(pid):
    try:
        return os.readlink(f"/proc/{pid}/fd/{DEVICE_FD}") == FUSE_DEVICE
    except OSError:
        return False


def _serves(pid):
    """It has begun to: threads are started last."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except FileNotFoundError:
        return False


def candidates(keeper_pid):
    """The keeper's children that have the FUSE device: the worker, and perhaps one that stands by."""
    return [pid for pid in _children(keeper_pid) if _comm(pid) == "holdfast-fuse" and _has_device(pid)]


class Stuck(AssertionError):
    """Nobody started a worker in the place of the killed one."""


class Killer:
    """Of a node with one volume."""

    def __init__(self, node, volume_id, victim="worker", gap_ms=(20, 100), seed=1):
        assert victim in VICTIMS, victim
        self.node, self.volume_id, self.victim, self.gap_ms = node, volume_id, victim, gap_ms
        self.rng = random.Random(seed)
        self.moments = []  # time.monotonic_ns() of each kill

    @property
    def kills(self):
        return len(self.moments)

    def worker(self):
        """The worker's pid, 0 if there is none right now. Where there are several, the keeper says which one serves."""
        found = candidates(self.node.keeper.pid)
        if len(found) > 1:
            try:
                pid = self.node.status()[self.volume_id]["workerPid"]
            except Exception:  # between two keepers, or two workers
                return self.rng.choice(found)
            return pid if pid in found else self.rng.choice(found)
        return found[0] if found else 0

    def _wait_for(self, condition, what):
        end = time.monotonic() + WORKER_LIMIT_S
        while not (value := condition()):
            if time.monotonic() > end:
                raise Stuck(f"{what}: not within {WORKER_LIMIT_S} s after kill {self.kills}; the keeper's last words: "
                            f"{self.node.keeper.text()[-1500:]}")
            time.sleep(0.001)
        return value

    def kill_worker(self):
        """After a gap that three times of four begins when the worker serves, else as soon as there is one."""
        pid = self._wait_for(self.worker, "a worker")
        if self.rng.random() < 0.75:
            self._wait_for(lambda: _serves(pid) or _comm(pid) == "", "a worker that serves")
        time.sleep(self.rng.uniform(*self.gap_ms) / 1000)
        try:
            pidfd = os.pidfd_open(self.worker() or pid)
        except ProcessLookupError:
            return
        try:
            self.moments.append(time.monotonic_ns())
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            self.moments.pop()
        finally:
            os.close(pidfd)

    def kill_keeper(self):
        """And start the next one at once."""
        time.sleep(self.rng.uniform(*self.gap_ms) / 1000)
        self.moments.append(time.monotonic_ns())
        self.node.keeper.kill()
        self.node.start_keeper()

    def kill(self):
        keeper = self.victim == "keeper" or (self.victim == "alternate" and self.kills % 2)
        (self.kill_keeper if keeper else self.kill_worker)()

    def run(self, while_true):
        """Kill for as long as while_true() says so; it is asked before each."""
        while while_true():
            self.kill()
