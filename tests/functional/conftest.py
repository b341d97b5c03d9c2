# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes node in a directory: keeper and plugin as real processes, kubelet played by an independent gRPC client.

The build under test is named by HOLDFAST_BUILD (default: ../../build). The whole run has a mount namespace of its own, so
nothing can leak to the host. Every test has a deadline: when it passes, the FUSE connections of its node are aborted, so that
whatever hangs on a mount ends with ENOTCONN and the test fails instead of the run.
"""

import os
import pathlib
import shutil
import sys
import tempfile
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import stubs  # noqa: E402

DEADLINE_S = float(os.environ.get("HOLDFAST_TEST_DEADLINE", "120"))

stubs.own_mount_namespace()  # before gRPC starts threads
STUBS = stubs.generate()

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
def patient(bare_node):
    """The keeper lets hung workers be; to be asked for before what starts it."""
    bare_node.keeper.env["HOLDFAST_HANG_TIMEOUT"] = "0"


@pytest.fixture
def plugin(bare_node):
    """A node whose plugin serves; there is no keeper."""
    bare_node.run_dir.mkdir(mode=0o700)
    bare_node.start_plugin()
    return bare_node


@pytest.fixture
def node(bare_node):
    """A node whose keeper and plugin serve."""
    bare_node.start()
    return bare_node
