#!/usr/bin/env python3
"""The test files of a folder are compiled together: a function or constant that two of them have under one name would be
ambiguous or, with other types, be called silently in place of the other."""

import collections
import re
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
NOT_TOGETHER = {"kernels"}  # CMakeLists.txt compiles these one by one
# Begins in the first column, has a type, and ends in what a definition goes on with.
DEFINITION = re.compile(r"(?!TEST|TYPED|INSTANTIATE|using|namespace|template|return)[A-Za-z_][\w:<>,&*. ]*?[ &*>](\w+)(\(| ?\{| = |\[|;)")
OVERLOADED = {"PrintTo"}  # by GoogleTest's rules, one for each type


def main() -> int:
    where = collections.defaultdict(set)
    for path in TESTS.glob("**/*_test.cc"):
        if path.parent.name in NOT_TOGETHER:
            continue
        for line in path.read_text("utf-8").splitlines():
            if (found := DEFINITION.match(line)) and found.group(1) not in OVERLOADED:
                where[path.parent, found.group(1)].add(path.name)
    twice = {key: files for key, files in where.items() if len(files) > 1}
    for (folder, name), files in sorted(twice.items()):
        print(f"{folder.relative_to(TESTS)}: expected names of their own, but {', '.join(sorted(files))} have {name}")
    return 1 if twice or not where else 0


if __name__ == "__main__":
    sys.exit(main())
