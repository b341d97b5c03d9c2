# SPDX-License-Identifier: Apache-2.0
"""Debian's cloud kernel of a release, from the mirror that this machine's apt knows; unpacked once, kept afterwards."""

import lzma
import os
import re
import shutil
import subprocess

METAPACKAGE = "linux-image-cloud-amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unavailable(Exception):
    """Why there is no kernel; one line for a person."""


class Kernel:
    """vmlinuz and the modules of one release, below a directory of its own."""

    def __init__(self, release, cache):
        self.release, self.directory = release, cache / release
        if not self._unpacked():
            self._fetch()

    def _unpacked(self):
        return next(self.directory.glob("kernel/boot/vmlinuz-*"), None)

    @property
    def image(self):
        return self._unpacked()

    @property
    def version(self):
        return self.image.name.removeprefix("vmlinuz-")

    def modules(self, names):
        """What has to be loaded for these modules, in order: (name, content); nothing for what the kernel has built in."""
        base = self.directory / "kernel"
        files = {re.sub(r"\.ko(\.xz)?$", "", p.name).replace("-", "_"): p for p in base.rglob("*.ko*")}
        builtin = {os.path.basename(line).removesuffix(".ko").replace("-", "_")
                   for p in base.rglob("modules.builtin") for line in p.read_text().split()}
        loaded = {}

        def load(name):
            if name in loaded or name in builtin:
                return
            if name not in files:
                raise Unavailable(f"{self.version} has no module {name}")
            content = files[name].read_bytes()
            content = lzma.decompress(content) if files[name].suffix == ".xz" else content
            for needed in re.search(rb"\0depends=([^\0]*)\0", content)[1].decode().split(","):
                if needed:
                    load(needed.replace("-", "_"))
            loaded[name] = content

        for name in names:
            load(name)
        return list(loaded.items())

    def _fetch(self):
        """The signature of the archive is checked by apt, with Debian's own keys."""
        reasons = []
        for mirror in mirrors():
            shutil.rmtree(self.directory, ignore_errors=True)
            apt = Apt(self.directory / "apt", mirror, self.release)
            try:
                apt.get("update")
                package = re.search(r"^Depends:.*?\b(linux-image-[\w.+-]+-cloud-amd64)\b", apt.show(METAPACKAGE), re.M)
                if not package:
                    raise Unavailable(f"{METAPACKAGE} of {self.release} names no kernel")
                apt.get("download", package[1])
                new = self.directory / "new"
                command(["dpkg-deb", "-x", *self.directory.glob("apt/*.deb"), new])
                new.rename(self.directory / "kernel")
                return
            except Unavailable as e:
                reasons.append(str(e))
            finally:
                shutil.rmtree(self.directory / "apt", ignore_errors=True)
        raise Unavailable(f"no kernel of Debian {self.release}: " + ("; ".join(reasons) or "apt knows no mirror of Debian"))


class Apt:
    """apt with a state of its own: one release of one mirror, and nothing of what this machine has installed."""

    def __init__(self, directory, mirror, release):
        self.directory = directory
        for d in ("lists/partial", "cache/archives/partial"):
            (directory / d).mkdir(parents=True)
        sources = directory / "sources.list"
        sources.write_text(f"deb [arch=amd64 signed-by={KEYRING}] {mirror} {release} main\n")
        settings = {"Dir::State": directory, "Dir::State::status": "/dev/null", "Dir::State::lists": directory / "lists",
                    "Dir::Cache": directory / "cache", "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null",
                    "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
                    "APT::Architecture": "amd64", "APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any",
                    "APT::Update::Post-Invoke": "true", "Acquire::Languages": "none", "Acquire::Retries": "3"}
        self.options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def get(self, *args):
        command(["apt-get", "-qq", *self.options, *args], cwd=self.directory)

    def show(self, package):
        return command(["apt-cache", *self.options, "show", package])


def command(words, cwd=None):
    done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{words[0]} failed: " + " ".join((done.stderr or done.stdout).split())[:600])
    return done.stdout


def mirrors():
    """Base addresses from which this machine's apt takes a release of Debian that has the same suites below it."""
    system = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', open("/etc/os-release").read(), re.M))
    suites = {system.get("VERSION_CODENAME", ""), "stable", "oldstable"}
    found = []
    for line in command(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(CREATED_BY)"]).splitlines():
        uri, release, component, kind = line.rsplit(" ", 3)
        if system.get("ID") == "debian" and release in suites and (component, kind) == ("main", "Packages") and uri not in found:
            found.append(uri)
    return found
