"""Errors of the model store.

ModelStoreError
├── ModelNotFoundError            no such name, version, alias or digest
│   └── NoEarlierVersionError     an alias has nothing to go back to
├── ManifestInvalidError          a manifest that does not say what it must
├── ArchitectureUnsupportedError  an architecture this build cannot run
├── WeightsCorruptedError         bytes that do not match their sha256, or do not fit the network
└── ModelAlreadyPublishedError    a version that exists; versions are never overwritten
"""


class ModelStoreError(Exception):
    """Root of everything the model store raises."""


class ModelNotFoundError(ModelStoreError):
    """No checkpoint answers to this reference. `known` are those there are; `reason` replaces the text."""

    def __init__(self, reference: str, known: tuple[str, ...] = (), reason: str | None = None) -> None:
        self.reference = reference
        self.known = known
        there = f"there is {', '.join(known)}" if known else "the store is empty"
        super().__init__(reason or f"no checkpoint {reference!r}; {there}")


class NoEarlierVersionError(ModelNotFoundError):
    """An alias, `name@alias`, has nothing to go back to; `gone` is what it named, where that was removed."""

    def __init__(self, reference: str, gone: str | None) -> None:
        what = f"{gone}, which is not in the store any more," if gone else "no checkpoint"
        reason = f"{reference} named {what} before its last promotion; there is nothing to go back to"
        super().__init__(reference, reason=reason)


class ManifestInvalidError(ModelStoreError):
    """The manifest at `path` cannot be used; `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"manifest {path}: {reason}")


class ArchitectureUnsupportedError(ModelStoreError):
    """This build has no generator of that name."""

    def __init__(self, architecture: str, known: tuple[str, ...]) -> None:
        self.architecture = architecture
        self.known = known
        super().__init__(f"architecture {architecture!r} is not one of {', '.join(known)}")


class WeightsCorruptedError(ModelStoreError):
    """The bytes at `path` are not the ones the manifest names, or do not fit the network."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"weights {path}: {reason}")


class ModelAlreadyPublishedError(ModelStoreError):
    """`name@version` exists already and is immutable."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        super().__init__(f"{name}@{version} is already published; versions are never overwritten")
