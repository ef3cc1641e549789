"""What this build of the package is: compiler, flags, and which kernels run on this machine.

For bug reports and for tests that must know what they are testing (style, "Kernels").
"""

from __future__ import annotations

from dataclasses import dataclass

from neuralartifactdb import _core

__all__ = ["BuildInfo", "build_info"]


@dataclass(frozen=True)
class BuildInfo:
    """Facts of the compiled core.

    Attributes:
        version: Version of the package that the core was built for.
        compiler: Name and version of the C++ compiler.
        flags: Optimisation and floating-point flags.
        cpp_standard: For example `"C++17"`.
        kernels_compiled: Names of the instruction sets that are compiled in, best first.
        kernels: The one in use, chosen at import (environment variable `NADB_FORCE_KERNELS`).
        threads: Threads that long loops use by default (environment variable `NADB_THREADS`, else all).
    """

    version: str
    compiler: str
    flags: str
    cpp_standard: str
    kernels_compiled: tuple[str, ...]
    kernels: str
    threads: int


def build_info() -> BuildInfo:
    """Returns what the compiled core is and which kernels it uses here.

    Example:
        >>> import neuralartifactdb as nadb
        >>> nadb.build_info().kernels in nadb.build_info().kernels_compiled
        True
    """
    info = _core.build_info()
    return BuildInfo(
        version=info["version"],
        compiler=info["compiler"],
        flags=info["flags"],
        cpp_standard=info["cpp_standard"],
        kernels_compiled=tuple(info["kernels_compiled"]),
        kernels=info["kernels"],
        threads=info["threads"],
    )
