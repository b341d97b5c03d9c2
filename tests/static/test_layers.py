# SPDX-License-Identifier: Apache-2.0
"""The architecture, as far as a program can see it: who may include whom, what stays where, how large things grow."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LAYERS = ["base", "mount", "fuse", "recovery", "csi"]  # an include never points to the right
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)
SOURCES = sorted(p for layer in LAYERS for p in (ROOT / layer).glob("*.[ch]"))


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_includes_point_downwards(path):
    rank = LAYERS.index(path.parent.name)
    for target in INCLUDE.findall(path.read_text()):
        layer = target.split("/")[0]
        if layer in LAYERS:
            assert LAYERS.index(layer) <= rank, f"{name(path)} includes {target}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_generated_messages_stay_in_csi(path):
    if path.parent.name != "csi":
        assert not re.search(r"pb-c\.h|protobuf-c|<grpc/", path.read_text())


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix == ".c"], ids=name)
def test_a_source_includes_its_own_header_first(path):
    header = path.with_suffix(".h")
    if header.exists():
        assert INCLUDE.findall(path.read_text())[0] == name(header)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_says_its_licence_and_stays_readable(path):
    text = path.read_text()
    assert text.startswith("/* SPDX-License-Identifier: Apache-2.0 */")
    assert text.count("\n") <= 1000
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix == ".c"], ids=name)
def test_functions_are_at_most_100_lines(path):
    start = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            assert number - start <= 100, f"{name(path)}:{start}"
            start = None


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix == ".h"], ids=name)
def test_a_header_has_pragma_once(path):
    assert "#pragma once" in path.read_text()
