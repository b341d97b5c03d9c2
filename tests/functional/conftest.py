# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes node in a directory: keeper and plugin as real processes, kubelet played by an independent gRPC client.

The build under test is named by HOLDFAST_BUILD (default: ../../build). The whole run has a mount namespace of its own, so
nothing can leak to the host. Every test has a deadline: when it passes, the FUSE connections of its node are aborted, so that
whatever hangs on a mount ends with ENOTCONN and the test fails instead of the run.
"""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 1 << 18, 2
DEADLINE_S = float(os.environ.get("HOLDFAST_TEST_DEADLINE", "120"))


def _own_mount_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS): run the tests as root")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "make mounts private")
    # crun before 1.9 refuses a machine that shows both cgroup versions; our view of it may show one
    libc.umount2(b"/sys/fs/cgroup/unified", MNT_DETACH)


_own_mount_namespace()  # before gRPC starts threads


def _generate_stubs():
    out = tempfile.mkdtemp(prefix="holdfast-stubs-")
    protos = sorted(p.name for p in (ROOT / "proto").glob("*.proto"))
    subprocess.run(
        ["/usr/bin/python3", "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", "-I/usr/include",
         f"--python_out={out}", f"--grpc_python_out={out}", *protos],
        check=True, cwd=ROOT / "proto")
    sys.path.insert(0, out)
    return out


STUBS = _generate_stubs()

from harness import Node  # noqa: E402  (needs the stubs)


def pytest_sessionfinish(session, exitstatus):
    shutil.rmtree(STUBS, ignore_errors=True)


@pytest.fixture
def bare_node(tmp_path_factory):
    """A node with its directories made and nothing started."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="hf-"))  # short: socket paths have 107 bytes
    node = Node(base)
    timer = threading.Timer(DEADLINE_S, node.abort_connections)
    timer.daemon = True
    timer.start()
    try:
        yield node
    finally:
        timer.cancel()
        node.close()


@pytest.fixture
def node(bare_node):
    """A node whose keeper and plugin serve."""
    bare_node.start()
    return bare_node
