"""Remove a release that `turbo server install` has put on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.core.daemon_record import daemon_lives, read_record
from agent.core.errors import BinaryError, UsageError
from agent.core.folders import private_folder
from agent.core.llamacpp_installed import Installed, installed_releases, releases_folder


def uninstall(name: str) -> Installed:
    """Remove the release of that name (``b9828-cpu``), or the only one of that tag (``b9828``).

    Raises UsageError when there is no such one or the daemon runs it, BinaryError when it cannot be
    removed.
    """
    known = installed_releases()
    found = [x for x in known if name in (x.name, x.tag)]
    if len(found) != 1:
        said = f"{len(found)} releases have the tag {name}" if found else f"There is no {name} here"
        listed = ", ".join(x.name for x in known)
        raise UsageError(
            f"{said}.", fix=f"Installed: {listed}." if listed else "No release is installed."
        )
    release = found[0]
    record = read_record() if daemon_lives() else None
    if record and record.serving and Path(record.serving.argv[0]).is_relative_to(release.folder):
        raise UsageError(f"The daemon runs {release.name}.", fix="End it: turbo server stop")
    try:
        with private_folder(releases_folder()) as private:
            release.folder.rename(private / release.name)  # from here on nobody finds half of it
            shutil.rmtree(private / release.name)
    except OSError as error:
        raise BinaryError(
            f"{error.filename or release.folder} cannot be removed: {error.strerror or error}",
            fix="Make that folder writable, or remove it by hand.",
        ) from None
    return release
