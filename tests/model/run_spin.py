#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks takeover.pml with spin: it has no error, all of it is reached, and each mutation of it has one.

run_spin.py [--cc CC]. Exits 0, or 1 with what is wrong, or 77 (a skip for meson) where there is no spin.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

MODEL = pathlib.Path(__file__).resolve().parent / "takeover.pml"
SCENES = (1, 2, 3)
SAFETY_KILLS = 3
LIVENESS = ((1, 2), (2, 1), (3, 1))  # scene, kills; with one FORGET, as two take longer and say no more
FAIR = ((1, 1),)  # weakly fair runs only, as far as time allows; what LIVENESS says of all runs is more
MUTATIONS = (  # macro, scene that shows it
    ("NO_INTENT", 1), ("NO_INTENT", 2), ("BEGUN_FIRST", 1), ("DONE_FIRST", 1), ("NO_REDO", 1), ("NO_PROBE", 1),
    ("CLEAR_BEFORE_REPLY", 2), ("FORGOTTEN_FIRST", 1), ("UNDO_CLOBBERS", 2),
)
DEPTH = "100000"


class Verifier:
    """One pan, built in a directory of its own."""

    def __init__(self, cc, directory, macros, safety, optimize="-O2"):
        self.directory = directory
        directory.mkdir()
        shutil.copy(MODEL, directory)
        self.call(["spin", *(f"-D{m}" for m in macros), "-a", MODEL.name])
        kind = ["-DSAFETY", "-DNOCLAIM"] if safety else ["-DNFAIR=4"]
        self.call([cc, optimize, "-w", "-DCOLLAPSE", "-DMEMLIM=4000", *kind, "-o", "pan", "pan.c"])

    def call(self, command):
        result = subprocess.run(command, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stdout}")
        return result.stdout

    def run(self, *options):
        begin = time.monotonic()
        command = ["nice", "./pan", f"-m{DEPTH}", *options]
        text = subprocess.run(command, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False).stdout
        return Outcome(text, time.monotonic() - begin)


class Outcome:
    def __init__(self, text, seconds):
        self.text, self.seconds = text, seconds
        errors = re.search(r"errors: (\d+)", text)
        states = re.search(r"(\d+) states, stored", text)
        self.errors = int(errors.group(1)) if errors else None  # None: it did not get that far
        self.states = int(states.group(1)) if states else 0
        first = re.search(r"^pan:1: (.*)$", text, re.M)
        self.first = first.group(1)[:150] if first else ""
        self.whole = self.errors is not None and "Search not completed" not in text and "max search depth" not in text

    def unreached(self):
        """{process: {(line, state, text)}}"""
        found, process = {}, None
        for line in self.text.splitlines():
            head = re.match(r"unreached in (proctype \w+|init|claim \w+)", line)
            item = re.match(rf"\s+{re.escape(MODEL.name)}:(\d+), state (\d+), (.*)", line)
            if head:
                process = head.group(1)
                found.setdefault(process, set())
            elif item and process and '"-end-"' not in item.group(3):
                found[process].add(item.groups())
        return found


def report(ok, name, outcome):
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {outcome.states} states, {outcome.seconds:.1f} s {outcome.first}", flush=True)
    if not ok and not outcome.first:
        print(outcome.text[-3000:])
    return ok


def check_safety(cc, top):
    ok, never = True, None
    for scene in SCENES:
        pan = Verifier(cc, top / f"safety{scene}", [f"SCENE={scene}", f"KILLS={SAFETY_KILLS}"], safety=True)
        outcome = pan.run()
        ok = report(outcome.whole and outcome.errors == 0, f"safety, scene {scene}, {SAFETY_KILLS} kills", outcome) and ok
        unreached = outcome.unreached()
        threads = unreached.pop("proctype thread", None)
        unreached = {name: unreached.get(name) for name in ("proctype keeper", "init") if unreached.get(name) != set()}
        if threads is None or unreached:
            print(f"FAIL scene {scene} never gets to {unreached}")
            ok = False
        # a thread has steps that only some scenes have a use for
        never = threads if never is None else never & (threads or set())
    if never:
        print(f"FAIL no scene gets to {sorted(never)}")
        ok = False
    return ok


def check_liveness(cc, top):
    ok = True
    for scene, kills in LIVENESS:
        macros = [f"SCENE={scene}", f"KILLS={kills}", "EVICTIONS=1"]
        outcome = Verifier(cc, top / f"live{scene}", macros, safety=False).run("-a")
        ok = report(outcome.whole and outcome.errors == 0, f"liveness, scene {scene}, {kills} kills", outcome) and ok
    for scene, kills in FAIR:
        macros = [f"SCENE={scene}", f"KILLS={kills}", "EVICTIONS=1"]
        outcome = Verifier(cc, top / f"fair{scene}", macros, safety=False).run("-a", "-f")
        ok = report(outcome.whole and outcome.errors == 0, f"liveness, weakly fair, scene {scene}, {kills} kills", outcome) and ok
    macros = ["SCENE=2", "KILLS=1", "CLEAR_BEFORE_REPLY", "WEAK"]
    outcome = Verifier(cc, top / "dead", macros, safety=False, optimize="-O1").run("-a", "-A", "-E")
    return report(bool(outcome.errors), "liveness is violated with CLEAR_BEFORE_REPLY", outcome) and ok


def check_mutations(cc, top):
    ok = True
    for macro, scene in MUTATIONS:
        macros = [f"SCENE={scene}", "KILLS=2", macro, "WEAK"]
        outcome = Verifier(cc, top / f"{macro}{scene}", macros, safety=True, optimize="-O1").run()
        ok = report(bool(outcome.errors), f"{macro} is found in scene {scene}", outcome) and ok
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="gcc", help="the C compiler")
    args = parser.parse_args()
    if not shutil.which("spin"):
        print("there is no spin(1) here")
        return 77
    with tempfile.TemporaryDirectory(prefix="holdfast-model-") as name:
        top = pathlib.Path(name)
        checks = [check(args.cc, top) for check in (check_safety, check_liveness, check_mutations)]
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
