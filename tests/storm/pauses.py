# SPDX-License-Identifier: Apache-2.0
"""How long calls wait: probe.c as a process, and what follows from its samples."""

import array
import bisect
import os
import subprocess

CALLS = ("statx", "open", "read")
PERCENTILES = (("p50", 50), ("p99", 99), ("p99.9", 99.9), ("max", 100))
STOP_LIMIT_S = 30


class Probe:
    """One call in a loop, from start to stop."""

    def __init__(self, program, call, path, output):
        self.call, self.output, self.error = call, str(output), ""
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", str(program), call, str(path), self.output],
                                        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def stop(self):
        """Whether it ended well; `error` says how if not."""
        self.process.stdin.close()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.error = f"probe {self.call} hangs"
            return False
        self.error = self.process.stderr.read().strip()
        self.process.stderr.close()
        return self.process.returncode == 0

    def samples(self):
        """When each call began and how long it took, in order: two arrays of nanoseconds. None if there was no call."""
        numbers = array.array("Q")
        with open(self.output, "rb") as f:
            numbers.frombytes(f.read())
        os.unlink(self.output)
        return (numbers[::2], numbers[1::2]) if numbers else None


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] if values else 0


def percentiles(nanoseconds):
    """{"p50": ms, ...}"""
    return {name: percentile(nanoseconds, p) / 1e6 for name, p in PERCENTILES}


def per_kill(samples, kills):
    """The longest call of those that were under way between each kill and the next, in nanoseconds."""
    (begins, durations), longest = samples, []
    for kill, following in zip(kills, kills[1:]):
        first = max(0, bisect.bisect_right(begins, kill) - 1)  # the one that was under way
        last = bisect.bisect_left(begins, following)
        longest.append(max((durations[i] for i in range(first, last) if begins[i] + durations[i] >= kill), default=0))
    return longest
