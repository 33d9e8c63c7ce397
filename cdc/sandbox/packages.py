"""Debian packages, unpacked into a folder of their own: nothing is installed, no root is needed.

The packages come with all libraries that they depend on, the C library included, from the mirror that the
machine's own apt uses, checked by apt against Debian's keys. A program of them runs with the folder's own
loader (ld.so(8)), so that the machine's suite does not matter.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from pathlib import Path

from cdc.errors import ConfigError
from cdc.sandbox.cache import cache_folder, made_once, say

_DEBIAN_SUITES = re.compile(
    r"(sid|unstable|testing|stable|oldstable|bullseye|bookworm|trixie|forky|duke)(-updates|-backports)?"
)
_RELEASE_FILE = re.compile(r"^'(?P<site>[^']+)/dists/(?P<suite>[^/']+)/InRelease'")
_NOT_LIBRARIES = re.compile(r"(perl|libperl|libgdbm|libdb5|dpkg|tar$|debconf|gcc-.*-base|adduser|passwd)")
"""Dependencies of maintainer scripts, which never run here."""

_HINT = (
    "give an existing server instead: DEMO_MYSQL=mysql://… for the demo, DUCKLING_TEST_MYSQL and "
    "DUCKLING_TEST_MARIADB for the tests, or a server program with DUCKLING_MYSQLD and DUCKLING_MARIADBD"
)


def unpacked(suite: str, *packages: str) -> Path:
    """The folder that holds `packages` of Debian's `suite` with their dependencies, made at first use.

    Raises ConfigError where apt is missing, its sources name no Debian mirror, or the download fails.
    """
    for program in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(program) is None:
            raise ConfigError(f"{program} is missing, so {packages[0]} can't be unpacked", hint=_HINT)
    architecture = _run(["dpkg", "--print-architecture"]).strip()
    target = cache_folder() / "packages" / f"{packages[0]}-{suite}-{architecture}"
    return made_once(target, lambda folder: _unpack(folder, suite, packages))


def library_path(root: Path) -> str:
    """The folders of shared libraries under `root`, as the loader's --library-path wants them."""
    folders = [folder for top in ("usr/lib", "lib") for folder in sorted((root / top).glob("*-linux-gnu*"))]
    # The suites differ in where they keep libraries of the same package: some use both places.
    return ":".join(str(folder) for folder in folders if folder.is_dir())


def loader(root: Path) -> Path:
    """The dynamic loader under `root`. Raises ConfigError where there is none."""
    for top in ("usr/lib", "lib", "lib64", "usr/lib64"):
        for pattern in ("*-linux-gnu*/ld-linux*.so.*", "*-linux-gnu*/ld64.so.*", "ld-linux*.so.*"):
            found = sorted((root / top).glob(pattern))
            if found:
                return found[0]
    raise ConfigError(f"the unpacked packages in {root} have no loader", hint=_HINT)


def _unpack(folder: Path, suite: str, packages: tuple[str, ...]) -> None:
    work = folder / ".apt"
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    apt = [
        "apt-get",
        "-q",
        "-y",
        *_option("Dir::State", work),
        *_option("Dir::State::Lists", work / "lists"),
        *_option("Dir::State::status", work / "status"),
        *_option("Dir::Cache", work / "cache"),
        *_option("Dir::Cache::archives", work / "cache/archives"),
        # The machine's preferences among suites are for what is installed on it.
        *_option("Dir::Etc::Preferences", work / "preferences"),
        *_option("Dir::Etc::PreferencesParts", work / "parts"),
        *_option("APT::Default-Release", ""),
        *_option("APT::Install-Recommends", "false"),
        *_option("APT::Sandbox::User", getpass.getuser()),
        *_option("APT::Get::Assume-Yes", "true"),
        *_option("Acquire::Languages", "none"),
        *_option("Acquire::Retries", "3"),
    ]
    mirror = _debian_mirror(apt)
    # The list names no key: apt's own trusted keys are those of the machine's Debian suite.
    (work / "sources.list").write_text(f"deb {mirror} {suite} main\n")
    apt += [*_option("Dir::Etc::SourceList", work / "sources.list")]
    apt += [*_option("Dir::Etc::SourceParts", work / "parts")]
    say(f"fetching {packages[0]} from Debian {suite} (once; kept in {folder.parent})")
    _run([*apt, "update"])
    plan = _run([*apt, "--simulate", "install", *packages])
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    needed = [name for name in names if not _NOT_LIBRARIES.match(name)]
    _run([*apt, "download", *needed], cwd=work / "cache/archives")
    archives = sorted((work / "cache/archives").glob("*.deb"))
    for archive in archives:
        _run(["dpkg-deb", "--extract", str(archive), str(folder)])
    shutil.rmtree(work)
    say(f"unpacked {len(archives)} packages")


def _option(name: str, value: str | Path) -> tuple[str, str]:
    return "-o", f"{name}={value}"


def _debian_mirror(apt: list[str]) -> str:
    """The mirror of Debian's main archive in the machine's apt sources, whatever suite they take from it."""
    for line in _run([*apt, "--print-uris", "update"]).splitlines():
        match = _RELEASE_FILE.match(line)
        if match and _DEBIAN_SUITES.fullmatch(match["suite"]) and "security" not in match["site"]:
            return match["site"]
    raise ConfigError("apt's sources name no mirror of Debian", hint=_HINT)


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        reason = (told or done.stderr.splitlines() or ["no message"])[0].removeprefix("E: ").rstrip(".")
        step = " ".join(word for word in command if not word.startswith("-") and "=" not in word)
        raise ConfigError(f"`{step[:80]}` failed: {reason}", hint=_HINT)
    return done.stdout
