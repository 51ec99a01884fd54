"""The packages of the extra ``telemetry``, which are imported only when `instrument` needs them."""

from __future__ import annotations

from importlib import import_module

from ..errors import MisuseError


def require(package: str, option: str, neutral: object) -> None:
    """Raise `MisuseError`, which names the extra, if a package that an option needs is not installed.

    ``neutral`` is the option's value that needs no package.
    """
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        raise MisuseError(
            f"instrument({option}=…) needs {package.split('.')[0]}: "
            f"pip install 'dotmac-database-toolkit[telemetry]', or use {option}={neutral}.",
            field=option,
        ) from error
