"""Changing what an alias names: read past the catalogue's cache, judged by the gate, seen here at once."""

import hashlib
from dataclasses import dataclass

from model_store.errors import ModelNotFoundError
from model_store.promotion import GateFailure, PromotionRefusedError, promote
from model_store.store import AliasChange, AliasMovedError, Checkpoint, ModelStore
from service.checkpoints.catalogue import ModelCatalogue
from service.errors import (
    FieldError,
    InvalidParameterError,
    NotFoundError,
    PreconditionFailedError,
    QualityGateError,
)
from service.http.byte_range import etag_matches


@dataclass(frozen=True, slots=True)
class AliasState:
    """What an alias names now. change: the one that led there, None for an alias older than its history."""

    checkpoint: Checkpoint
    alias: str
    change: AliasChange | None
    etag: str


@dataclass(frozen=True, slots=True)
class Condition:
    """`If-Match` and `If-None-Match` of a request, as they came."""

    if_match: str | None = None
    if_none_match: str | None = None


class Promotions:
    """What the routes do with aliases."""

    def __init__(self, store: ModelStore, models: ModelCatalogue) -> None:
        self._store = store
        self._models = models

    def look(self, name: str, alias: str) -> AliasState:
        """Raises NotFoundError for an alias or a model that there is not, ModelStoreError."""
        found = self._look(name, alias)
        if found is None:
            known = sorted(self._store.aliases(name))
            listed = ", ".join(known) or "none"
            raise NotFoundError(
                f"There is no alias {alias[:100]!r} of a model {name[:100]!r}; there are: {listed}.",
                errors=[FieldError("alias", "no such alias", known or None)],
            )
        return found

    def promote(
        self, name: str, version: str, alias: str, *, condition: Condition, force_reason: str | None
    ) -> AliasState:
        """Let the alias name the version.

        force_reason: why, although the gate refuses. Raises PreconditionFailedError also if somebody else
        changes the alias meanwhile, QualityGateError, InvalidParameterError for what cannot be an alias,
        ModelNotFoundError, other ModelStoreError.
        """
        if version not in self._store.versions(name):
            known = tuple(f"{name}@{other}" for other in self._store.versions(name))
            raise ModelNotFoundError(f"{name[:100]}@{version[:100]}", known or self._store.names())
        self._check_alias(name, alias)
        current = self._look(name, alias)
        _check(condition, current, f"{name}@{alias}")
        expected = None if current is None else current.checkpoint.manifest.version
        try:
            promote(self._store, name, version, alias=alias, force_reason=force_reason, expected=expected)
        except AliasMovedError as error:
            raise PreconditionFailedError(f"{error}.") from error
        except PromotionRefusedError as error:
            fields = [_field_error(reason) for reason in error.reasons]
            raise QualityGateError(f"{error}.", errors=fields) from error
        finally:
            self._models.forget()
        return self.look(name, alias)

    def rollback(self, name: str, alias: str, *, condition: Condition) -> AliasState:
        """Let the alias name what it named before its last promotion.

        Raises PreconditionFailedError, NotFoundError, ModelNotFoundError if there is nothing to go back to.
        """
        _check(condition, self.look(name, alias), f"{name}@{alias}")
        try:
            self._store.rollback(name, alias)
        finally:
            self._models.forget()
        return self.look(name, alias)

    def _look(self, name: str, alias: str) -> AliasState | None:
        version = self._store.aliases(name).get(alias)
        if version is None:
            return None
        changes = [change for change in self._store.history(name) if change.alias == alias]
        checkpoint = self._store.resolve(f"{name}@{version}")
        state = f"{name}/{alias}/{version}/{len(changes)}"
        etag = f'"{hashlib.sha256(state.encode()).hexdigest()[:16]}"'
        return AliasState(checkpoint, alias, changes[-1] if changes else None, etag)

    def _check_alias(self, name: str, alias: str) -> None:
        try:
            self._store.check_alias(name, alias)
        except ValueError as error:
            field = FieldError("alias", str(error), "lower-case letters, digits, _ or -, and no version")
            raise InvalidParameterError(f"{error}.", errors=[field]) from error


def _check(condition: Condition, current: AliasState | None, what: str) -> None:
    """RFC 9110, 13.1: `If-Match` compares strongly. Raises PreconditionFailedError."""
    etag = None if current is None else current.etag
    if condition.if_match is not None:
        tags = {tag.strip() for tag in condition.if_match.split(",")}
        if etag is None or tags.isdisjoint({"*", etag}):
            now = "names nothing" if current is None else f"names {current.checkpoint.manifest.version} now"
            raise PreconditionFailedError(f"If-Match: {what} {now}; GET it for its ETag.")
    if etag is not None and etag_matches(condition.if_none_match, etag):
        raise PreconditionFailedError(f"If-None-Match: {what} is there already.")


def _field_error(reason: GateFailure | str) -> FieldError:
    """One of the gate's reasons, under the class it speaks of, or the version where it is of no class."""
    if isinstance(reason, str):
        return FieldError("version", reason)
    value = "was not measured" if reason.candidate is None else f"is {reason.candidate:.4g}"
    there = "" if reason.production is None else f", in production {reason.production:.4g}"
    bound = "at most" if reason.is_upper else "at least"
    return FieldError(reason.class_slug, f"{reason.figure} {value}{there}", f"{bound} {reason.limit:.4g}")
