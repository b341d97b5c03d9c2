# SPDX-License-Identifier: Apache-2.0
"""Layers: what a path shows before a healing, it shows after it."""

import time

import pytest
from container import Container
from harness import mountinfo
from healing import NAMES_STAY, healed, inside, make_volume

CASES = {
    # two layers of the volume, with something mounted below the upper one, and below the lower
    "below the upper": ("""tmpfs("/data/one"); open("/data/one/file", "w").write("lower\\n")
        bind("/data", "/data"); tmpfs("/data/sub"); open("/data/sub/mine", "w").write("upper\\n")""",
        {"/data/f": "hello\n", "/data/sub/mine": "upper\n"}),
    "two in one place": ("""tmpfs("/data/sub"); open("/data/sub/mine", "w").write("hidden\\n")
        tmpfs("/data/sub"); open("/data/sub/mine", "w").write("seen\\n")""", {"/data/f": "hello\n", "/data/sub/mine": "seen\n"}),
    "foreign between": ("""os.mkdir("/side"); bind("/data", "/side"); tmpfs("/data")
        bind("/side", "/data"); umount("/side")""", {"/data/f": "hello\n"}),
    "a directory of it on it": ("""bind("/data/sub", "/data")""", {"/data/g": "below\n"}),
    "foreign on top with below": ("""tmpfs("/data/one"); tmpfs("/data"); os.mkdir("/data/x"); tmpfs("/data/x"); open("/data/x/mine", "w").write("x\\n")
        tmpfs("/data"); open("/data/top", "w").write("top\\n")""", {"/data/top": "top\n"}),
}


@pytest.mark.parametrize("case", CASES)
def test_layers(node, case):
    code, files = CASES[case]
    volume = make_volume(node, attributes=NAMES_STAY)
    container = Container(node, {"/data": (volume.up(), [])})
    inside(container.pid, "import os\n" + "\n".join(line.strip() for line in code.splitlines()))
    for _ in range(2):
        for path, text in files.items():
            assert container.exec("cat", path) == text
        healed(volume)
        log = volume.node.plugin.text()[-1500:]
        assert "was lost" not in log and "stays" not in log, log
    for path, text in files.items():
        assert container.exec("cat", path) == text


def test_a_directory_of_the_node_below_a_volume_stays(node):
    """Nobody has been there lately, so the kernel would have to ask the dead server for the way."""
    volume = make_volume(node)
    mine = node.base / "mine"
    mine.mkdir()
    (mine / "f").write_text("mine\n")
    container = Container(node, {"/data": (volume.up(), []), "/data/sub": (mine, ["ro", "noexec"]),
                                 "/data/f": (mine / "f", ["ro"])})
    before = [(m["target"], m["root"], m["options"]) for m in mountinfo(container.pid) if m["target"].startswith("/data/")]
    time.sleep(2.5)  # the entries' timeouts
    for _ in range(3):
        healed(volume)
        assert [(m["target"], m["root"], m["options"]) for m in mountinfo(container.pid)
                if m["target"].startswith("/data/")] == before
        assert container.exec("cat", "/data/sub/f", "/data/f") == "mine\nmine\n"
        time.sleep(2.5)
    assert "was lost" not in node.plugin.text()
