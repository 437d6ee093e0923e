"""Debian packages: downloads, contents, versions and licences."""

import re
import shutil
import subprocess
from pathlib import Path

# As root, apt would warn that its sandbox user cannot write to the cache.
_APT_DOWNLOAD = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download"]


def archive_of(package: str, cache: Path) -> Path | None:
    return max(cache.glob(f"{package}_*.deb"), default=None)


def download(packages: list[str], cache: Path) -> dict[str, str]:
    """Downloads what the cache does not have; returns the packages that could not be had, with the reason."""
    wanted = [package for package in packages if archive_of(package, cache) is None]
    if not wanted:
        return {}
    known = set(subprocess.check_output(["apt-cache", "pkgnames"], text=True).split())
    failed = {package: "not in apt's lists (run `apt-get update`?)" for package in wanted if package not in known}
    wanted = [package for package in wanted if package in known]
    partial = cache / "partial"  # so that an archive in the cache itself is whole
    partial.mkdir(exist_ok=True)
    # One call of apt for many packages, since each reads all lists; small groups, so that what is there is kept.
    groups = [wanted[first : first + 16] for first in range(0, len(wanted), 16)]
    while groups:
        group = groups.pop(0)
        print(f"downloading {' '.join(group)}", flush=True)
        done = subprocess.run([*_APT_DOWNLOAD, *group], cwd=partial, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            for archive in partial.glob("*.deb"):
                archive.rename(cache / archive.name)
        elif len(group) > 1:
            groups = [[package] for package in group] + groups
        else:
            lines = done.stderr.strip().splitlines()
            failed[group[0]] = lines[-1] if lines else f"apt-get exited with status {done.returncode}"
    shutil.rmtree(partial)
    return failed


def unpack(archive: Path, cache: Path) -> Path:
    """The folder of the unpacked package."""
    root = cache / "unpacked" / archive.stem
    if not root.exists():
        partial = root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
        partial.rename(root)
    return root


def field(archive: Path, name: str) -> str:
    return subprocess.check_output(["dpkg-deb", "-f", archive, name], text=True).strip()


_KNOWN_TERMS = (
    ("Permission is hereby granted, free of charge", "MIT"),
    ("Redistribution and use in source and binary forms", "BSD"),
    ("Apache License", "Apache-2.0"),
    ("PostgreSQL License", "PostgreSQL"),
    ("Python Software Foundation License", "PSF"),
    ("Artistic License", "Artistic"),
    ("public domain", "public domain"),
)


def licences(copyright_file: str, most: int = 4) -> str:
    """Short names of the licences in a copyright file, that of `Files: *` first."""
    names = []
    if re.search(r"^Format:", copyright_file, re.MULTILINE):
        stanzas = re.split(r"\n\s*\n(?=[A-Z][\w-]*:)", copyright_file)
        stanzas.sort(key=lambda stanza: re.search(r"^Files: *\*\s*$", stanza, re.MULTILINE) is None)
        for stanza in stanzas:
            names += re.findall(r"^Licen[sc]e: *(\S.*?)\s*$", stanza, re.MULTILINE)
    if not names:
        names = re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", copyright_file)
        names += [name for words, name in _KNOWN_TERMS if words.lower() in copyright_file.lower()]
    names = list(dict.fromkeys(names))
    if not names:
        return "see its copyright file"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
