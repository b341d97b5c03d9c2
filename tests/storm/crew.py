# SPDX-License-Identifier: Apache-2.0
"""The workloads as processes: started, watched, stopped; what they report is collected.

A process that hangs is reported with the call that it hangs in. Nothing here waits for one without a limit; ending it takes
an abort of its FUSE connection, which is for the caller to do before close().
"""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from storm.run import SCALE, read_marker, report_path

TESTS = pathlib.Path(__file__).resolve().parent.parent
STOP_LIMIT_S = 60
ENDED = "ended"


class Crew:
    def __init__(self, directory, scratch, names, seed=1):
        self.directory, self.scratch, self.names, self.seed = directory, pathlib.Path(scratch), list(names), seed
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.processes, self.hung, self._looked = {}, [], 0.0
        self._before_hang = {}  # how much each had reported; the rest comes from the abort

    def start(self):
        env = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"}
        for name in self.names:
            with open(self.scratch / f"{name}.log", "wb") as log:
                self.processes[name] = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "nice", sys.executable, "-m", "storm", name, str(self.directory),
                     str(self.scratch), str(self.seed)],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True)
        return self

    # while they run

    def is_well(self):
        """Whether nobody hangs; looks twice a second."""
        if time.monotonic() - self._looked > 0.5:
            self._looked = time.monotonic()
            for name, process in self.processes.items():
                if process.poll() is None:
                    self._look_at(name)
        return not self.hung

    def _look_at(self, name):
        for marker in self.scratch.glob(f"{name}.*.now"):
            until, what = read_marker(marker)
            if until and time.monotonic() > until and lives(marker.name.split(".")[1]):
                self._report_hang(name, what)

    def _report_hang(self, name, what):
        if any(entry["workload"] == name for entry in self.hung):
            return
        if not self.hung:
            self._before_hang = {n: len(self._lines(n)) for n in self.names}
        where = stacks(self.processes[name].pid)
        where = where.replace(str(self.directory), "VOLUME").replace(str(self.scratch), "SCRATCH")
        self.hung.append({"kind": "hang", "workload": name, "call": what, "path": "", "text": where})

    def stop(self):
        """Every workload ends its round. Those that do not in time hang."""
        for process in self.processes.values():
            process.stdin.close()
        end = time.monotonic() + STOP_LIMIT_S * SCALE
        while self._running() and self.is_well() and time.monotonic() < end:
            time.sleep(0.02)
        for name in self._running() if not self.hung else ():
            doing = [read_marker(m)[1] for m in self.scratch.glob(f"{name}.*.now")]
            self._report_hang(name, f"its round goes on and on: {'; '.join(filter(None, doing))}")

    def _running(self):
        return [name for name, process in self.processes.items() if process.poll() is None]

    def close(self):
        """The end of all processes; those that hang need their connections aborted first."""
        for process in self.processes.values():
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for process in self.processes.values():
            if not process.stdin.closed:
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                pass  # the next abort ends it

    # what came of it

    def result(self):
        result = Result(self.hung)
        for name, process in self.processes.items():
            lines = self._lines(name)
            result.rounds[name] = sum(line["rounds"] for line in lines if line["kind"] == "end")
            result.add([line for line in lines if line["kind"] != "end"])
            code = process.poll()
            if self.hung or code is None or (code == 0 and any(line["kind"] == "end" for line in lines)):
                continue
            doing = [read_marker(m)[1] for m in self.scratch.glob(f"{name}.*.now")]
            log = (self.scratch / f"{name}.log").read_text(errors="replace")[-800:]
            how = f"died of signal {-code} {log}" if code < 0 else f"exit code {code} {log}"
            result.add([{"kind": "failed", "workload": name, "call": "; ".join(doing), "path": "", "text": how}])
        return result

    def _lines(self, name):
        path = pathlib.Path(report_path(self.scratch, name))
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines[:self._before_hang.get(name)]]


class Result:
    """What all workloads of a crew have reported."""

    def __init__(self, hung):
        self.rounds, self.failed, self.differences, self.hung = {}, [], [], list(hung)

    def add(self, entries):
        for entry in entries:
            (self.failed if entry["kind"] == "failed" else self.differences).append(entry)

    def clean(self):
        return not (self.failed or self.differences or self.hung)

    def text(self, most=4):
        """For a person: how much of what, then the first ones of each workload."""
        entries = self.hung + self.failed + self.differences
        count = collections.Counter((entry["workload"], entry["kind"]) for entry in entries)
        lines = [f"{len(self.failed)} failed calls, {len(self.differences)} differences, {len(self.hung)} hang: "
                 + ", ".join(f"{name} {kind} {n}" for (name, kind), n in sorted(count.items()))]
        for name in sorted({entry["workload"] for entry in entries}):
            of_it = [entry for entry in entries if entry["workload"] == name]
            lines += [f"  {name}: {e['kind']}: {e['call']} {e['path']}: {e['text']}"[:1500] for e in of_it[:most]]
        return "\n".join(lines)


def lives(pid):
    """Whether the process has not ended: what a killed one was doing is no hang."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def stacks(pid):
    """Where the processes of a session wait in the kernel, and what they are."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) != pid:
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:300]
            frames = [line.split()[1].split("+")[0] for line in (entry / "stack").read_text().splitlines()]
        except (OSError, IndexError):
            continue
        found.append(f"{entry.name} ({command.strip()}) in {' < '.join(frames[:8])}")
    return "; ".join(found) or ENDED
