"""How a table of the lake comes to be, and grows with the versions of holdfast.

    what stands there                                what is done
    nothing                                          it is made, with all columns of this version
    a table with the first of these columns          the others are added at its end; the rows before have NULL there
    a table with exactly these                       nothing
    another table, other files, a later version's    refused, by the first difference

Promise: rivals may open one table at once, of whatever versions: it is made once, every column is added once, and
what this one cannot write as a whole it does not write to. On a disk what was made is synced when this returns.

Limits: only columns that a row may lack are ever added. A projector of an earlier version stops at a table that a
later one widened: its rows would lack what their records say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import BadInput
from holdfast.lake.durable import sync_folder, sync_versions
from holdfast.lake.extras import load
from holdfast.lake.store import LOG_FOLDER, LakeStore
from holdfast.lake.tables import PARTITION, PROPERTIES, LakeTable

if TYPE_CHECKING:
    from deltalake import DeltaTable, PostCommitHookProperties

WIDENED = "holdfast.widened"
"""A table with this property has columns that its older files lack; a reader of the bare files must be told."""

_REQUIRED = " not null"


def open_table(store: LakeStore, table: type[LakeTable]) -> DeltaTable:
    """The newest version of *table*, which is made or widened where it must be.

    Raises:
        BadInput: Something else stands there: another table, other files, a later version's table.
        LakeError: The store refused, gave no answer, or the table is damaged.
    """
    if not _is_there(store, table.name):
        _make(store, table)
    handle = store.open(table.name)
    if missing := _missing_columns(store, table, handle):
        _widen(store, table, handle, missing)
        handle = store.open(table.name)
        _missing_columns(store, table, handle)  # a rival of a later version may have widened it further
    return handle


def delta_schema(table: type[LakeTable]) -> Any:
    """The `deltalake.Schema` of *table*."""
    return load("deltalake").Schema.from_arrow(table.schema())


def no_hooks() -> PostCommitHookProperties:
    """Checkpoints and clean-up are made when we say so, and synced."""
    hooks: PostCommitHookProperties = load("deltalake").PostCommitHookProperties(
        create_checkpoint=False, cleanup_expired_logs=False
    )
    return hooks


# -- made -----------------------------------------------------------------------------------------------------------


def _is_there(store: LakeStore, name: str) -> bool:
    """Whether there is a table; the folder of its log alone is none, a repair may have emptied it."""
    if not store.is_local:
        return store.has(name)
    return next((store.path / name / LOG_FOLDER).glob("[0-9]*"), None) is not None


def _make(store: LakeStore, table: type[LakeTable]) -> None:
    name = table.name
    store.refuse_other_files(name)
    with store.failures(f"make {name!r}"):
        try:
            load("deltalake").DeltaTable.create(
                store.table_uri(name),
                delta_schema(table),
                mode="ignore",
                partition_by=[PARTITION],
                name=name,
                configuration=dict(PROPERTIES),
                storage_options=store.options or None,
            )
        except load("deltalake.exceptions").CommitFailedError:
            return  # a rival made it; whether it is ours is looked at next
    if store.is_local:
        sync_versions(store.path / name, 0, 0)
        sync_folder(store.path / name)
        sync_folder(store.path)


# -- widened --------------------------------------------------------------------------------------------------------


def _missing_columns(store: LakeStore, table: type[LakeTable], handle: DeltaTable) -> list[str]:
    """The last columns of *table*, those that came since the version that made what is open as *handle*.

    Raises:
        BadInput: It is no table of this version or an earlier one.
    """
    expected, found = _columns_of(delta_schema(table)), _columns_of(handle.schema())
    partitions = handle.metadata().partition_columns
    missing = list(expected)[len(found) :]
    begins = list(found.items()) == list(expected.items())[: len(found)]
    if (
        begins
        and partitions == [PARTITION]
        and not any(expected[name].endswith(_REQUIRED) for name in missing)
    ):
        return missing
    why, hint = _difference(found, expected, partitions)
    raise BadInput(f"lake {store}: the table {table.name!r} has another schema: {why}", hint=hint)


def _widen(store: LakeStore, table: type[LakeTable], handle: DeltaTable, names: Sequence[str]) -> None:
    before, hooks = handle.version(), no_hooks()
    fields = [field for field in delta_schema(table).fields if field.name in names]
    with store.failures(f"add columns to {table.name!r}"):
        try:
            handle.alter.set_table_properties(
                {WIDENED: "true"}, raise_if_not_exists=False, post_commithook_properties=hooks
            )
            handle.alter.add_columns(fields, post_commithook_properties=hooks)
        except load("deltalake.exceptions").CommitFailedError:
            return  # a rival is at it too; what it made is looked at next
    if store.is_local:
        sync_versions(store.path / table.name, before + 1, handle.version())


def _columns_of(schema: Any) -> dict[str, str]:
    """The columns of a Delta schema, in order, each with its type."""
    return {field.name: f"{field.type}{'' if field.nullable else _REQUIRED}" for field in schema.fields}


def _difference(
    found: Mapping[str, str], expected: Mapping[str, str], partitions: Sequence[str]
) -> tuple[str, str]:
    """How a table's columns differ from those that this version writes, half a sentence; and what to do."""
    anew = "choose another lake, or let `holdfast lake rebuild` make this one anew"
    names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    if not names and partitions != [PARTITION]:
        return f"it is partitioned by {', '.join(partitions) or 'nothing'}, expected {PARTITION}", anew
    if not names:
        return f"its column {next(iter(expected))!r} and others are in another order", anew
    name = names[0]
    if name not in expected:
        return f"its column {name!r} is unknown to this version of holdfast", f"upgrade holdfast here, {anew}"
    return f"its column {name!r} is {found.get(name, 'missing')}, expected {expected[name]}", anew
