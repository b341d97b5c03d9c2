# SPDX-License-Identifier: Apache-2.0
"""Logs: to the journal where it is, and never in anybody's way."""

import os
import signal
import socket
import subprocess

import pytest

from harness import BUILD, eventually

IN_A_NAMESPACE = """
mount -t tmpfs none /run
mkdir -p /run/systemd/journal
: >/run/systemd/journal/socket
mount --bind "$0" /run/systemd/journal/socket
exec "$@"
"""


class Journal:
    """A journal's socket that is read when we say so."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def fill(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.setblocking(False)
            try:
                while True:
                    s.sendto(b"MESSAGE=filler\n", str(self.path))
            except BlockingIOError:
                pass

    def read(self):
        entries = []
        try:
            while True:
                entries.append(self.socket.recv(1 << 16).decode())
        except BlockingIOError:
            return entries


@pytest.fixture
def journal(bare_node):
    j = Journal(bare_node.base / "journal")
    yield j
    j.socket.close()


def start(node, journal):
    """The plugin, in a mount namespace where the journal is ours."""
    env = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
    with open(node.plugin.log, "ab") as log:
        node.plugin.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec", IN_A_NAMESPACE, str(journal.path), str(BUILD / "holdfast-csi"),
             *node.plugin.args], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    eventually(lambda: node._answers() or node._died(node.plugin), what="plugin's answer")


def test_the_journal_gets_fields(bare_node, journal):
    start(bare_node, journal)
    entries = eventually(journal.read, what="journal entries")
    assert any("SYSLOG_IDENTIFIER=holdfast-csi" in e and "PRIORITY=5" in e for e in entries)


def test_a_journal_that_hangs_stalls_nobody(bare_node, journal):
    journal.fill()
    start(bare_node, journal)
    assert "serves on" in bare_node.plugin.text()  # where the journal does not take it
    journal.read()
    bare_node.plugin.process.send_signal(signal.SIGTERM)
    assert bare_node.plugin.process.wait(20) == 0
    assert any("ended" in e for e in journal.read())  # it is used again when it can be
