#!/usr/bin/env python3
"""Holds the sources to the dependency rule of docs/architecture.md. Standard library only.

    tests/include_rule_test.py

Prints each violation as file:line and the rule it breaks. The samples below show that each rule can fail.
"""

import re
import sys
import unittest

from tree_rule import check_repository, check_samples

# Bottom to top: a folder includes itself and the layers below, never its neighbours. A folder that is not named here, as
# kernels/rows, is part of the one that it is in.
LAYERS = [
    ["base"],
    ["core"],
    ["kernels"],
    ["weights", "comm", "placement", "sched", "text"],
    ["tokenizer", "jinja", "trace"],
    ["model", "train", "federate", "costs", "grammar", "load", "eval"],
    ["engine"],
    ["server/log", "simulate"],
    ["server/http", "server/ranks", "server/metrics"],
    ["server/api"],
    ["server"],
    ["bench"],
    ["apps"],
]
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}

# Libraries that one folder keeps to itself.
HOME = {"mpi.h": ["bench", "comm"], "CLI/": ["apps"]}

# Slow to compile: for .cc files, and for headers that only .cc files include.
HEAVY = ("nlohmann/json.hpp", "boost/", "toml++/", "toml.hpp", "pcre2.h", "fmt/format.h", "spdlog/", "mpi.h", "CLI/")

MAX_LINES = 450
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def folder_of(parts):
    """The longest path of folders that has a place in the layers; the first folder if none has."""
    paths = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((path for path in paths if path in LEVEL), paths[-1])


class Source:
    def __init__(self, root, path):
        self.path = path.relative_to(root)
        self.is_header = path.suffix == ".h"
        self.in_src = self.path.parts[0] in ("src", "apps", "bench")
        # src/model/forward.cc and tests/model/forward_test.cc are model's, apps/foe.cc is apps'.
        self.folder = folder_of(self.path.parts[:-1] if self.path.parts[0] in ("apps", "bench") else self.path.parts[1:-1])
        self.included_as = "/".join(self.path.parts[1 if self.path.parts[0] == "src" else 0:])
        self.lines = path.read_text(encoding="utf-8").splitlines()
        matches = [(number, INCLUDE.match(line)) for number, line in enumerate(self.lines, 1)]
        self.quoted = [(number, match[1]) for number, match in matches if match and match[1]]
        self.angled = [(number, match[2]) for number, match in matches if match and match[2]]

    def heavy_includes(self):
        return [(number, name) for number, name in self.angled if name.startswith(HEAVY)]


def check_layers(source):
    for number, name in source.quoted:
        if "/" not in name:
            continue
        folder = folder_of(name.split("/")[:-1])
        if folder == source.folder or folder not in LEVEL:
            continue
        if LEVEL[folder] == LEVEL[source.folder]:
            yield number, f'{source.folder} and {folder} are of one layer and may not include each other: "{name}"'
        elif LEVEL[folder] > LEVEL[source.folder]:
            yield number, f'{folder} is above {source.folder}, and includes go downwards only: "{name}"'


def check_paths(source, root):
    """Tests also share helpers, as folder/file.h under tests/; bench/file.h is for benchmarks, their tests and apps; tests
    and apps may name a file beside them."""
    top = source.path.parts[0]
    for number, name in source.quoted:
        under = [root / "src"] + ([root / "tests"] if top == "tests" else [])
        if "/" not in name:
            found = top != "src" and (root / source.path.parent / name).is_file()
        else:
            if top != "src" and name.startswith("bench/"):
                under.append(root)
            found = ".." not in name.split("/") and any((folder / name).is_file() for folder in under)
        if not found:
            yield number, f'a quoted include is "folder/file.h" under src/: "{name}"'


def check_homes(source):
    for number, name in source.angled:
        for library, homes in HOME.items():
            if name.startswith(library) and source.folder not in homes:
                yield number, f"only {' and '.join(homes)} may include <{library}>: <{name}>"


def check_heavy(source, sources):
    """A heavy header may not reach other files through one of ours."""
    if not source.is_header or not source.heavy_includes():
        return
    number, heavy = source.heavy_includes()[0]
    for user in sources:
        if user.is_header and any(name == source.included_as for _, name in user.quoted):
            yield number, f"<{heavy}> is heavy, and {user.path} includes it through this header"


def check_form(source):
    if len(source.lines) > MAX_LINES:
        yield MAX_LINES + 1, f"the file has {len(source.lines)} lines: past {MAX_LINES} it wants splitting"
    # Highway's headers are included once for each instruction set.
    guard = "defined(HWY_TARGET_TOGGLE)" if source.path.name.endswith("-inl.h") else "#pragma once"
    if source.is_header and not any(guard in line for line in source.lines):
        yield 1, f"a header has {guard}"


def violations(root):
    files = [path for top in ("src", "apps", "bench", "tests") for path in (root / top).rglob("*")]
    sources = [Source(root, path) for path in sorted(files) if path.suffix in (".h", ".cc")]
    found = []
    for source in sources:
        broken = [*check_paths(source, root), *check_form(source)]
        if source.in_src:
            if source.folder not in LEVEL:
                broken.append((1, f"folder {source.folder} has no place in the layers"))
            else:
                broken += check_layers(source)
            broken += check_homes(source)
            broken += check_heavy(source, sources)
        found += [f"{source.path}:{number}: {rule}" for number, rule in sorted(broken)]
    return found


HEADER = "#pragma once\n"
# What is wrong: the files, and the start and the rule of the one violation they make (None: there is none).
SAMPLES = {
    "downwards": ({"src/core/a.h": HEADER, "src/text/b.cc": '#include "core/a.h"\n'}, None),
    "upwards": ({"src/text/a.h": HEADER, "src/core/b.h": HEADER + '\n#include "text/a.h"\n'},
                "src/core/b.h:3: text is above core"),
    "neighbours": ({"src/comm/a.h": HEADER, "src/text/b.cc": '#include "comm/a.h"\n'},
                   "src/text/b.cc:1: text and comm are of one layer"),
    "indented": ({"src/comm/a.h": HEADER, "src/text/b.cc": ' #  include "comm/a.h"\n'}, "src/text/b.cc:1: text and comm"),
    "new folder": ({"src/misc/a.cc": "\n"}, "src/misc/a.cc:1: folder misc has no place"),
    "missing file": ({"src/text/a.cc": '#include "text/b.h"\n'}, "src/text/a.cc:1: a quoted include"),
    "no folder": ({"src/text/b.h": HEADER, "src/text/a.cc": '#include "b.h"\n'}, "src/text/a.cc:1: a quoted include"),
    "beside a test": ({"tests/text/b.h": HEADER, "tests/text/a_test.cc": '#include "b.h"\n'}, None),
    "shared by tests": ({"tests/weights/b.h": HEADER, "tests/text/a_test.cc": '#include "weights/b.h"\n'}, None),
    "a benchmark's test": ({"bench/b.h": HEADER, "tests/bench/a_test.cc": '#include "bench/b.h"\n'}, None),
    "apps elsewhere": ({"apps/b.h": HEADER, "tests/bench/a.cc": '#include "apps/b.h"\n'},
                       "tests/bench/a.cc:1: a quoted include"),
    "a folder in a library": ({"src/kernels/rows/a.h": HEADER, "src/kernels/b.cc": '#include "kernels/rows/a.h"\n'}, None),
    "a library in a folder": ({"src/server/http/a.h": HEADER, "src/server/b.cc": '#include "server/http/a.h"\n'}, None),
    "out of it": ({"src/server/a.h": HEADER, "src/server/http/b.cc": '#include "server/a.h"\n'},
                  "src/server/http/b.cc:1: server is above server/http"),
    "beside it": ({"src/server/ranks/a.h": HEADER, "src/server/http/b.cc": '#include "server/ranks/a.h"\n'},
                  "src/server/http/b.cc:1: server/http and server/ranks are of one layer"),
    "dots": ({"tests/weights/b.h": HEADER, "tests/text/a_test.cc": '#include "../weights/b.h"\n'},
             "tests/text/a_test.cc:1: a quoted include"),
    "a test's helper": ({"tests/text/b.h": HEADER, "src/text/a.cc": '#include "text/b.h"\n'},
                        "src/text/a.cc:1: a quoted include"),
    "mpi at home": ({"src/comm/a.cc": "#include <mpi.h>\n"}, None),
    "mpi elsewhere": ({"src/model/a.cc": "#include <mpi.h>\n"}, "src/model/a.cc:1: only bench and comm may include <mpi.h>"),
    "CLI11 elsewhere": ({"src/server/a.cc": "#include <CLI/CLI.hpp>\n"}, "src/server/a.cc:1: only apps may include <CLI/>"),
    "heavy, private": ({"src/text/a.h": HEADER + "#include <nlohmann/json.hpp>\n",
                        "src/text/b.cc": '#include "text/a.h"\n'}, None),
    "heavy, shared": ({"src/text/a.h": HEADER + "#include <nlohmann/json.hpp>\n",
                       "src/jinja/b.h": HEADER + '#include "text/a.h"\n'}, "src/text/a.h:2: <nlohmann/json.hpp> is heavy"),
    "heavy, passed on": ({"src/text/a.h": HEADER + "#include <pcre2.h>\n",
                          "src/text/b.h": HEADER + '#include "text/a.h"\n'}, "src/text/a.h:2: <pcre2.h> is heavy"),
    "light": ({"src/text/a.h": HEADER + "#include <nlohmann/json_fwd.hpp>\n#include <fmt/core.h>\n",
               "src/server/b.cc": '#include "text/a.h"\n'}, None),
    "no guard": ({"src/text/a.h": "int f();\n"}, "src/text/a.h:1: a header has #pragma once"),
    "Highway": ({"src/kernels/a-inl.h": "#if defined(A) == defined(HWY_TARGET_TOGGLE)\n#endif\n"}, None),
    "long": ({"tests/text/a_test.cc": "\n" * 451}, "tests/text/a_test.cc:451: the file has 451 lines"),
}


class IncludeRule(unittest.TestCase):
    def test_samples(self):
        check_samples(self, violations, SAMPLES)

    def test_repository(self):
        check_repository(self, violations, "src", "*.cc")


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
