# SPDX-License-Identifier: Apache-2.0
"""A read-write volume behaves as the directory below it, in every mode that can be written through."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from harness import AccessMode

HERE = pathlib.Path(__file__).resolve().parent
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


def expected_difference(name):
    return any(re.match(pattern, name) for pattern in KNOWN)


@pytest.mark.parametrize("mode", MODES)
def test_every_posix_case_ends_as_on_the_source_itself(node, mode):
    volume = volume_in(node, mode)
    target = volume.up()
    plain = node.base / "plain"
    plain.mkdir()
    expected, found = run_cases(plain), run_cases(target)
    assert len(expected) > 3000
    differences = {name: {"source": expected[name], "volume": found[name]} for name in expected
                   if found[name] != expected[name] and not expected_difference(name)}
    volume.down()
    assert not differences, f"{len(differences)} differ: " + json.dumps(dict(list(differences.items())[:20]), indent=1)


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
