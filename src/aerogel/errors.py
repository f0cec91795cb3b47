"""Every error Aerogel raises on purpose, each also the builtin that it refines."""

from __future__ import annotations

import errno

__all__ = [
    "AerogelError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DivergedError",
    "FolderConflictError",
    "FolderExistsError",
    "IntegrityError",
    "MismatchError",
    "MissingDependencyError",
    "ProjectorError",
    "RankError",
    "StorageFullError",
    "UnknownNameError",
    "compose",
]


def compose(expected: str, got: str, remedy: str) -> str:
    """Write the message of an error: what was expected, what came and what to do next."""
    return f"expected {expected}; got {got}; what to do: {remedy}"


class AerogelError(Exception):
    """Mark an error that Aerogel raised on purpose, with a message for the user."""

    def __str__(self) -> str:
        """Return the message as written, also where the builtin parent would quote it."""
        return str(self.args[0]) if self.args else ""


class ConfigError(AerogelError, ValueError):
    """Report the mistakes of a configuration, all at once."""


class UnknownNameError(AerogelError, KeyError):
    """Report a name that no registry knows, with the nearest one that exists."""


class DataError(AerogelError, ValueError):
    """Report data of the user's that cannot be worked with."""


class FolderExistsError(AerogelError, FileExistsError):
    """Report that a result would be written where something already lies."""


class FolderConflictError(FolderExistsError):
    """Report a folder that belongs to another run or to other settings."""


class IntegrityError(AerogelError, ValueError):
    """Report a stored file or folder that is not what was written."""


class MismatchError(AerogelError, ValueError):
    """Report two parts that do not belong together, such as class lists or backbones."""


class DivergedError(AerogelError, ArithmeticError):
    """Say that a training loss became infinite or not a number."""


class ProjectorError(AerogelError, RuntimeError):
    """Report a label generator whose training collapsed."""


class MissingDependencyError(AerogelError, ImportError):
    """Report a package that is not installed, and name the extra that brings it."""


class RankError(AerogelError, RuntimeError):
    """Report a process of a group that failed, ended or fell out of step."""


class DeviceError(AerogelError, RuntimeError):
    """Report a device or number format that this machine cannot give."""


class StorageFullError(AerogelError, OSError):
    """Report a disk or quota that is full or too small for what comes."""

    def __init__(self, message: str) -> None:
        """Keep the message and carry the operating system's number for a full disk."""
        super().__init__(message)
        self.errno = errno.ENOSPC
