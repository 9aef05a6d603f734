"""The statements of the SQL store, in SQLAlchemy Core and without anything of one database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)

from voiceprint.storage.sql.tables import (
    augmented,
    caller_groups,
    callers,
    commits,
    deletions,
    store,
    tombstones,
    voiceprints,
)

STORE = select(store.c.identity, store.c.revision, store.c.next_id, store.c.feed_floor, store.c.encryption)
CALLERS = select(callers)
PRINTS = select(
    voiceprints, augmented.c.embedding.label("augmented"), augmented.c.seal.label("augmented_seal")
).outerjoin_from(
    voiceprints,
    augmented,
    and_(augmented.c.voiceprint_id == voiceprints.c.id, augmented.c.revision == voiceprints.c.revision),
)
# The base of a transaction is locked, in databases with row locks: `touch` waits until it is committed.
CALLER = CALLERS.where(callers.c.caller_id == bindparam("caller")).with_for_update().subquery()
STORE_AND_CALLER = STORE.add_columns(CALLER).select_from(store.outerjoin(CALLER, true()))
UPDATE_STORE = update(store).values(
    {name: bindparam(name) for name in ("revision", "next_id", "feed_floor", "encryption")}
)
NEW_CALLER = insert(callers)
NEW_PRINT = insert(voiceprints)
NEW_AUGMENTED = insert(augmented)
NEW_GROUP = insert(caller_groups)
DROP_GROUPS = delete(caller_groups).where(caller_groups.c.caller_id == bindparam("removed"))
NEW_TOMBSTONE = insert(tombstones)
NEW_COMMIT = insert(commits)
NEW_DELETION = insert(deletions)
DROP_DELETION = delete(deletions).where(
    deletions.c.key == bindparam("of_key"), deletions.c.digest == bindparam("of_digest")
)
DELETIONS_BY_DIGEST = select(deletions).where(
    deletions.c.key == bindparam("of_key"), deletions.c.digest.in_(bindparam("digests", expanding=True))
)
DELETED_SINCE = select(deletions).where(deletions.c.deleted_at >= bindparam("time"))
LAST_COMMIT = select(commits.c.revision, commits.c.token).order_by(commits.c.revision.desc()).limit(1)
LAST_COMMIT_UPTO = LAST_COMMIT.where(commits.c.revision <= bindparam("upto"))
COMMIT_AT = select(commits.c.token).where(commits.c.revision == bindparam("at"))
DROP_CALLER = delete(callers).where(callers.c.caller_id == bindparam("removed"))
DROP_PRINT = delete(voiceprints).where(voiceprints.c.id == bindparam("removed"))
DROP_AUGMENTED = delete(augmented).where(augmented.c.voiceprint_id == bindparam("removed"))
UPDATE_CALLER = (
    update(callers)
    .where(callers.c.caller_id == bindparam("key"))
    .values({column.name: bindparam(column.name) for column in callers.c})
)
UPDATE_PRINT = (
    update(voiceprints)
    .where(voiceprints.c.id == bindparam("key"))
    .values({column.name: bindparam(column.name) for column in voiceprints.c})
)
CALLER_EXISTS = select(callers.c.caller_id).where(
    callers.c.caller_id == bindparam("caller"),
    or_(callers.c.details.is_(None), callers.c.details.not_like('{"opt_out"%')),
)
TOUCH = (
    update(callers)
    .where(
        callers.c.caller_id == bindparam("caller"),
        # An opt-out comes first in the details.
        or_(callers.c.details.is_(None), callers.c.details.not_like('{"opt_out"%')),
        or_(callers.c.last_seen.is_(None), callers.c.last_seen < bindparam("seen")),
    )
    .values(last_seen=bindparam("seen"))
)
CALLERS_OF = CALLERS.where(callers.c.caller_id.in_(bindparam("ids", expanding=True)))
CALLERS_TO_CHANGE = CALLERS_OF.order_by(callers.c.caller_id).with_for_update()
PRINTS_OF = PRINTS.where(voiceprints.c.caller_id.in_(bindparam("ids", expanding=True))).order_by(
    voiceprints.c.caller_id, voiceprints.c.position
)
PRINT = voiceprints.alias()
# For LIMIT and OFFSET, in which the planner would not see the value of a parameter.
_NONE, _ONE = literal_column("0", Integer), literal_column("1", Integer)


def callers_of_prints(names: Sequence[str]) -> Select[Any]:
    """The callers of voiceprints: each row has a caller's columns, then those of a voiceprint.

    names: of the parameters, one for each id.
    """
    asked = PRINT.c.id.in_([bindparam(name) for name in names])
    return (
        select(callers, *PRINTS.selected_columns)
        .select_from(
            PRINTS.get_final_froms()[0].join(callers, callers.c.caller_id == voiceprints.c.caller_id)
        )
        .where(voiceprints.c.caller_id.in_(select(PRINT.c.caller_id).where(asked)))
        .order_by(voiceprints.c.caller_id, voiceprints.c.position)
    )


def _laterally(caller_id: ColumnElement[str]) -> tuple[FromClause, FromClause]:
    """The voiceprints of a caller, and the augmented embedding of each, looked up by index for each row.

    For databases with arrays and LATERAL. Without it, the planner of PostgreSQL expects the rows of one
    partition from every one, and would rather read whole tables than look up so many.
    """
    prints = select(voiceprints).where(voiceprints.c.caller_id == caller_id).offset(_NONE).lateral()
    second = (
        select(augmented.c.embedding.label("augmented"), augmented.c.seal.label("augmented_seal"))
        .where(augmented.c.voiceprint_id == prints.c.id, augmented.c.revision == prints.c.revision)
        .limit(_ONE)
        .lateral()
    )
    return prints, second


def _prints_of_each() -> Select[Any]:
    ids = bindparam("ids", type_=ARRAY(Text))
    asked = func.unnest(ids).table_valued("id").render_derived(name="asked")
    prints, second = _laterally(asked.c.id)
    return (
        select(*prints.c, *second.c)
        .select_from(asked.join(prints, true()).outerjoin(second, true()))
        .order_by(prints.c.caller_id, prints.c.position)
    )


def _callers_of_each_print() -> Select[Any]:
    ids = bindparam("ids", type_=ARRAY(BigInteger))
    asked = func.unnest(ids).table_valued("id").render_derived(name="asked")
    owner = select(PRINT.c.caller_id).where(PRINT.c.id == asked.c.id).limit(_ONE).lateral()
    owners = select(owner.c.caller_id).select_from(asked.join(owner, true())).distinct().subquery()
    caller = CALLERS.where(callers.c.caller_id == owners.c.caller_id).limit(_ONE).lateral()
    prints, second = _laterally(owners.c.caller_id)
    return (
        select(*caller.c, *prints.c, *second.c)
        .select_from(owners.join(caller, true()).join(prints, true()).outerjoin(second, true()))
        .order_by(prints.c.caller_id, prints.c.position)
    )


# As PRINTS_OF and `callers_of_prints`, of an array `ids`.
PRINTS_OF_EACH = _prints_of_each()
CALLERS_OF_EACH_PRINT = _callers_of_each_print()
CALLER_COLUMNS = tuple(callers.c.keys())
PRINT_COLUMNS = (*voiceprints.c.keys(), "augmented", "augmented_seal")
ONE_CALLER = CALLERS.where(callers.c.caller_id == bindparam("caller"))
ONE_CALLERS_PRINTS = PRINTS.where(voiceprints.c.caller_id == bindparam("caller")).order_by(
    voiceprints.c.position
)
PAGE = (
    CALLERS.where(callers.c.caller_id > bindparam("after"))
    .order_by(callers.c.caller_id)
    .limit(bindparam("size"))
)
DATA_KEYS = (
    select(callers.c.caller_id, callers.c.data_key)
    .where(callers.c.caller_id > bindparam("after"))
    .order_by(callers.c.caller_id)
    .limit(bindparam("size"))
)
OWNERS = select(voiceprints.c.id, voiceprints.c.caller_id).where(
    voiceprints.c.id.in_(bindparam("ids", expanding=True))
)
SPACE = voiceprints.c.encoder == bindparam("space")
# Rows of id, embedding and seal. Of an encrypted store, also the caller and the wrapped data key.
EMBEDDINGS = select(voiceprints.c.id, voiceprints.c.embedding, voiceprints.c.seal)
SEALED_EMBEDDINGS = EMBEDDINGS.add_columns(callers.c.caller_id, callers.c.data_key).join_from(
    voiceprints, callers, callers.c.caller_id == voiceprints.c.caller_id
)
SCAN, SEALED_SCAN = (
    rows.where(SPACE, voiceprints.c.id > bindparam("after"))
    .order_by(voiceprints.c.id)
    .limit(bindparam("size"))
    for rows in (EMBEDDINGS, SEALED_EMBEDDINGS)
)
DIMENSION = select(voiceprints.c.embedding).where(SPACE).limit(1)
IDS_OF_SPACE = select(voiceprints.c.id).where(SPACE).limit(bindparam("size"))
# Of each space: its voiceprints, its callers, and the bytes of an embedding.
COVERAGE = select(
    voiceprints.c.encoder,
    func.count(),
    func.count(voiceprints.c.caller_id.distinct()),
    func.max(func.length(voiceprints.c.embedding)),
).group_by(voiceprints.c.encoder)
FIRST_SPACE, LAST_SPACE = func.min(voiceprints.c.encoder), func.max(voiceprints.c.encoder)
OF_ONE_SPACE = (
    select(FIRST_SPACE.label("encoder"))
    .group_by(voiceprints.c.caller_id)
    .having(FIRST_SPACE == LAST_SPACE)
    .subquery()
)
CALLERS_OF_ONE_SPACE = select(OF_ONE_SPACE.c.encoder, func.count()).group_by(OF_ONE_SPACE.c.encoder)
SINCE = voiceprints.c.revision > bindparam("since")
FIRST_CHANGED = select(func.min(voiceprints.c.revision)).where(SPACE, SINCE)
REVISION_BEYOND_PAGE = (
    select(voiceprints.c.revision)
    .where(SPACE, SINCE)
    .order_by(voiceprints.c.revision)
    .offset(bindparam("size"))
    .limit(1)
)
CHANGED, SEALED_CHANGED = (
    rows.where(SPACE, SINCE, voiceprints.c.revision <= bindparam("upto")).order_by(voiceprints.c.id)
    for rows in (EMBEDDINGS, SEALED_EMBEDDINGS)
)
GROUPS = (
    select(caller_groups.c.name, voiceprints.c.id)
    .join(voiceprints, voiceprints.c.caller_id == caller_groups.c.caller_id)
    .where(SPACE)
    .order_by(caller_groups.c.name, voiceprints.c.id)
)
GROUPS_OF_CHANGED = GROUPS.where(SINCE, voiceprints.c.revision <= bindparam("upto"))
COUNT_ENROLLED = select(func.count(voiceprints.c.caller_id.distinct()))
REMOVED = (
    select(tombstones.c.voiceprint_id)
    .where(tombstones.c.revision > bindparam("since"), tombstones.c.revision <= bindparam("upto"))
    .order_by(tombstones.c.revision, tombstones.c.voiceprint_id)
)
NEWEST_SURPLUS_TOMBSTONE = (
    select(tombstones.c.revision).order_by(tombstones.c.revision.desc()).offset(bindparam("size")).limit(1)
)
