"""A private PostgreSQL server in a folder: its own cluster, socket and process, gone when closed.

Debian keeps the programs outside the PATH, and the server refuses to run as root, so that it is then run as the user
"postgres". Nothing of an installed cluster is touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["PostgresAbsentError", "PostgresServer", "find_programs", "headers"]

_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "work_mem": "256MB",
    "fsync": "off",
    "autovacuum": "off",
    "max_wal_size": "8GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
}


class PostgresAbsentError(RuntimeError):
    """There is no PostgreSQL here, or no driver for it."""


def find_programs() -> Path:
    """The folder of initdb and pg_ctl, the newest version first.

    Raises:
        PostgresAbsentError: says what to install.
    """
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    raise PostgresAbsentError(
        "PostgreSQL is not installed (initdb and pg_ctl were not found): apt-get install postgresql"
    )


def headers(programs: Path) -> Path | None:
    """The folder of the server's headers of the same version; None if they are not installed."""
    version = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    major = version.split()[2].split(".")[0]
    folder = Path(f"/usr/include/postgresql/{major}/server")
    return folder if (folder / "postgres.h").exists() else None


class PostgresServer:
    """A cluster in `folder`, made when missing; not started.

    Args:
        folder: of the cluster.

    Raises:
        PostgresAbsentError: no server, or no user that may run one.
    """

    def __init__(self, folder: Path) -> None:
        if not find_spec("psycopg"):
            raise PostgresAbsentError("psycopg is not installed: pip install 'psycopg[binary]'")
        self._programs = find_programs()
        self.folder = folder.resolve()
        self._socket: str | None = None
        self._user: dict[str, Any] = {}
        self.role = pwd.getpwuid(os.getuid()).pw_name
        if os.geteuid() == 0:
            try:
                self.role = "postgres"
                account = pwd.getpwnam(self.role)
            except KeyError:
                raise PostgresAbsentError("PostgreSQL does not run as root and there is no user 'postgres'") from None
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.is_new = not (self.folder / "PG_VERSION").exists()
        if self.is_new:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._give(self.folder)
            options = ("-U", self.role, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
            try:
                self._run("initdb", "-D", self.folder, *options)
            except RuntimeError as error:  # most likely a folder that the other user cannot reach
                raise PostgresAbsentError(f"no cluster could be made in {self.folder}: {error}") from error
            with (self.folder / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())

    def start(self) -> None:
        """Starts it and waits until it answers."""
        if self._socket is None:
            if (self.folder / "postmaster.pid").exists():  # a bench that was killed left its server running
                with suppress(RuntimeError):
                    self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self.folder)
            self._socket = tempfile.mkdtemp(prefix="nadb-pg-")  # short: the path of a socket has at most 107 bytes
            self._give(Path(self._socket))
            options = f"-c unix_socket_directories={self._socket}"
            self._run("pg_ctl", "start", "-w", "-D", self.folder, "-l", self.folder / "log.txt", "-o", options)

    def stop(self) -> None:
        """Stops it, everything written."""
        if self._socket is not None:
            self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self.folder)
            shutil.rmtree(self._socket)
            self._socket = None

    def connect(self) -> Any:
        """A psycopg connection."""
        import psycopg

        return psycopg.connect(host=self._socket, user=self.role, dbname="postgres", autocommit=True)

    def _give(self, folder: Path) -> None:
        if self._user:
            os.chown(folder, self._user["user"], self._user["group"])
        folder.chmod(0o700)

    def _run(self, program: str, *arguments: str | Path) -> None:
        # Output goes to a file: a started server keeps the pipe open, and reading it would never end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                **self._user,
            )
            if done.returncode:
                output.seek(0)
                raise RuntimeError(f"{program} failed with status {done.returncode}: {output.read().strip()}")
