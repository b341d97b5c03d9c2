# SPDX-License-Identifier: Apache-2.0
"""Layers: what a path shows before a healing, it shows after it."""

import time

import pytest
from container import Container
from harness import eventually, mountinfo
from healing import NAMES_STAY, Namespace, healed, healing, inside, kill_both, look_again, make_volume, mounts_of, read, stay_inside

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
    """Nobody has been there lately, so the kernel would have to ask the dead server for the way. What is mounted on such a
    directory stays too, and so does another volume beside it."""
    volume, other = make_volume(node), make_volume(node)
    mine, inner = node.base / "mine", node.base / "inner"
    for directory, text in ((mine, "mine"), (inner, "inner")):
        directory.mkdir()
        (directory / "f").write_text(f"{text}\n")
    (mine / "inner").mkdir()
    (inner / "volume").mkdir()
    container = Container(node, {"/data": (volume.up(), []),
                                 "/data/sub": (mine, ["ro", "noexec"]),
                                 "/data/sub/inner": (inner, []),
                                 "/data/sub/inner/volume": (other.up() / "sub", ["ro"]),
                                 "/data/one": (other.target(), []),
                                 "/data/f": (mine / "f", ["ro"])})
    before = [(m["target"], m["root"], m["options"]) for m in mountinfo(container.pid) if m["target"].startswith("/data/")]
    time.sleep(2.5)  # the entries' timeouts
    for _ in range(3):
        healed(volume)
        assert sorted((m["target"], m["root"], m["options"]) for m in mountinfo(container.pid)
                      if m["target"].startswith("/data/")) == sorted(before), node.plugin.text()
        assert container.exec("cat", "/data/sub/f", "/data/sub/inner/f", "/data/sub/inner/volume/g", "/data/one/f",
                              "/data/f") == "mine\ninner\nbelow\nhello\nmine\n"
        time.sleep(2.5)
    assert "was lost" not in node.plugin.text()


def test_a_volume_s_name_is_no_key_to_it(node):
    """Who may mount FUSE gives it any name. What is mounted below, or on top, stays what it was."""
    volume, other = (make_volume(node, attributes=NAMES_STAY) for _ in range(2))
    other.up()
    target = volume.up()
    namespace = Namespace(node, "--propagation", "private")
    liar = stay_inside(node, namespace.pid, """
        fds = [hung_fuse(args[0] + "/sub", args[1], "fuse.holdfast"), hung_fuse(args[0], args[2], "fuse.holdfast")]
    """, target, f"holdfast:{other.id}", f"holdfast:{volume.id}")

    def liars():
        ours = {m["dev"] for v in (volume, other) for m in mounts_of(v)}
        return {m["target"]: m["dev"] for m in mountinfo(namespace.pid)
                if m["target"].startswith(str(target)) and m["dev"] not in ours}

    before = liars()
    assert len(before) == 2
    kill_both(node)
    node.start()
    for v in (volume, other):
        eventually(lambda: healing(v)["healings"] == 1, what="healing")
    look_again(volume)
    assert liars() == before
    liar.remove()
    inside(namespace.pid, "umount(args[0])", target)
    assert read(namespace.pid, target / "f") == "hello\n"


def test_what_is_replaced_in_the_source_is_what_belongs_there(node):
    """By its name: the kernel marks the file or directory that was there as deleted."""
    volume = make_volume(node)
    source = node.sources / volume.id
    container = Container(node, {"/sub": (volume.up() / "sub", []), "/f": (volume.target() / "f", ["ro"])})
    (source / "new").mkdir()
    (source / "new" / "g").write_text("another\n")
    (source / "g").write_text("new\n")
    (source / "sub").rename(source / "away")
    (source / "new").rename(source / "sub")
    (source / "g").rename(source / "f")
    time.sleep(1.5)  # the entries' timeouts
    assert (volume.target() / "sub" / "g").read_text() == "another\n" and (volume.target() / "f").read_text() == "new\n"
    for _ in range(2):
        healed(volume)
        assert container.exec("cat", "/sub/g", "/f") == "another\nnew\n"
        assert healing(volume)["staleMounts"] == 0
