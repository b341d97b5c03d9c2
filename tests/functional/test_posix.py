# SPDX-License-Identifier: Apache-2.0
"""A read-write volume behaves as the directory below it, in every mode that can be written through."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import posix_cases
from harness import AccessMode

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from storm.crew import stacks  # noqa: E402
from storm.killer import Killer  # noqa: E402
from storm.run import SCALE  # noqa: E402

MODES = ("passthrough", "worker")

# Outcomes that differ from the source's, with the reason. Everything else has to be equal. All three come with
# FUSE_HANDLE_KILLPRIV_V2, without which each write would first ask the worker for security.capability; all three are on the
# safe side but the first, which leaves a file as it is.
KNOWN = {
    r"chown\(\w+, -1, -1, (3565|3492), file\)": "a chown that names neither owner nor group does not reach the server",
    r"suid_goes_when_written\(root, ": "set-id bits go when root writes, too: the kernel does not say who wrote",
    r"suid_goes_when_written\(\w+, [\w-]+, 1527\)": "setgid without group execute goes for members of the group, too",
}


def volume_in(node, mode):
    node.make_source("data")
    return node.volume("data", access=AccessMode.SINGLE_NODE_MULTI_WRITER, attributes={"mode": mode})


def run_cases(directory):
    out = subprocess.run([sys.executable, str(HERE / "posix_cases.py"), str(directory)], check=True, capture_output=True,
                         text=True, timeout=600).stdout
    return json.loads(out)


def cases_under_way(session):
    """What the processes of a session do: each case has a directory of its own, named after its number."""
    names, found = list(posix_cases.CASES), []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                number = re.search(r"/c(\d+)(/|$| )", os.readlink(entry / "cwd"))
                found.append(names[int(number.group(1))] if number else "")
        except OSError:
            pass
    return ", ".join(sorted(set(filter(None, found))))


def run_cases_while_workers_die(node, volume, directory):
    """The outcomes, and how many kills there were."""
    killer, end = Killer(node, volume.id, gap_ms=(50, 50)), time.monotonic() + 80 * SCALE
    with open(node.base / "outcomes", "w+") as out:
        process = subprocess.Popen([sys.executable, str(HERE / "posix_cases.py"), str(directory)],
                                   stdin=subprocess.DEVNULL, stdout=out, start_new_session=True)
        try:
            killer.run(lambda: process.poll() is None and time.monotonic() < end)
            hung = process.poll() is None and f"hangs in {cases_under_way(process.pid)}: {stacks(process.pid)}"
        finally:
            if process.poll() is None:
                node.abort_connections()
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        assert not hung, hung
        assert process.returncode == 0
        out.seek(0)
        return json.load(out), killer.kills


def expected_difference(name):
    return any(re.match(pattern, name) for pattern in KNOWN)


def differences_between(expected, found):
    """A line for each case that ended otherwise than it should."""
    lines = [f"{name}: on the source {json.dumps(expected[name])[:300]}, on the volume {json.dumps(found[name])[:300]}"
             for name in expected if found[name] != expected[name] and not expected_difference(name)]
    return lines and "\n".join([f"{len(lines)} differ:", *lines[:20]])


@pytest.mark.parametrize("mode", MODES)
def test_every_posix_case_ends_as_on_the_source_itself(node, mode):
    volume = volume_in(node, mode)
    target = volume.up()
    plain = node.base / "plain"
    plain.mkdir()
    expected, found = run_cases(plain), run_cases(target)
    assert len(expected) > 3000
    volume.down()
    differences = differences_between(expected, found)
    assert not differences, differences


@pytest.mark.parametrize("mode", MODES)
def test_every_posix_case_ends_so_while_workers_die_as_well(node, mode):
    volume = volume_in(node, mode)
    target = volume.up()
    plain = node.base / "plain"
    plain.mkdir()
    expected = run_cases(plain)
    found, kills = run_cases_while_workers_die(node, volume, target)
    assert kills > 10
    volume.down()
    differences = differences_between(expected, found)
    assert not differences, differences


def run_random(kind, target, plain, seed, count):
    done = subprocess.run([sys.executable, str(HERE / "random_operations.py"), kind, str(target), str(plain), str(seed),
                           str(count)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind,count", [("file", 4000), ("tree", 8000)])
def test_random_operations_leave_volume_and_plain_directory_equal(node, mode, kind, count):
    volume = volume_in(node, mode)
    target = volume.up()
    for seed in (1, 2, 3):
        on_volume, plain = target / f"s{seed}", node.base / f"plain{seed}"
        on_volume.mkdir()
        plain.mkdir()
        run_random(kind, on_volume, plain, seed, count)
    volume.down()
