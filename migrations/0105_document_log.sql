-- The log of each document is the document; everything else is made from it.

-- Where each log ends. Not in content_items, so that an edit never touches the row that a rename locks. Half-empty
-- pages keep the update of a head on its page, without a new index entry.
--
-- Without check constraints, like operations_log: 0106_append.sql says why, and what holds instead.
create table document_heads (
    tenant_id         uuid not null,
    document_id       uuid not null,
    seq               bigint not null default 0,
    tip               uuid not null default '00000000-0000-0000-0000-000000000000',
    deleted           boolean not null default false,
    -- Since when the document can only be read, because its log is damaged or keeps breaking its folds; until an
    -- administrator opens it again.
    read_only_since   timestamptz,
    -- Why: `broken_folds`, `corrupt_row`, `missing_rows` or `lost_head`.
    read_only_reason  text,
    primary key (tenant_id, document_id),
    -- No cascade: what was written is not lost with a row of metadata.
    foreign key (tenant_id, document_id) references content_items (tenant_id, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
select isolate_tenant('document_heads');
grant select, insert on document_heads to contextnexus_application;
grant update (seq, tip, deleted, read_only_since, read_only_reason) on document_heads to contextnexus_application;
-- Appends do not name the column, so this never fires for them.
create constraint trigger raise_access_epoch after update of read_only_since on document_heads
    deferrable initially deferred for each row when (old.read_only_since is distinct from new.read_only_since)
    execute function raise_access_epoch();

-- One row per user session and append. No foreign key and no second index: this is the hot path. Nothing is ever
-- deleted.
create table operations_log (
    tenant_id        uuid not null,
    document_id      uuid not null,
    seq_from         bigint not null,
    seq_to           bigint not null,
    -- By it the writer finds its rows after a COMMIT without an answer.
    append_id        uuid not null,
    tip              uuid not null,
    user_session_id  uuid not null,
    author_id        uuid,
    relayed_by       uuid,
    seen_seq         bigint not null,
    -- 0: as they are, 1: lz4 block. `raw_bytes` is the length before compression; it bounds decompression.
    codec            smallint not null,
    raw_bytes        integer not null,
    -- Each update as its length (u32, little endian) and its bytes. Empty: in quarantine.
    updates          bytea not null,
    -- CRC-32 over document, numbers and the uncompressed updates with their lengths.
    checksum         bigint not null,
    created_at       timestamptz not null default clock_timestamp(),
    primary key (tenant_id, document_id, seq_from)
);
alter table operations_log alter column updates set storage external; -- already compressed where that pays
select isolate_tenant('operations_log');
grant select, insert on operations_log to contextnexus_application;
-- Only for quarantine, and for an administrator who opens a damaged document again: a row that lost its numbers is
-- given those between its neighbors.
grant update (seq_to, tip, codec, raw_bytes, updates, checksum) on operations_log to contextnexus_application;

create table document_snapshots (
    tenant_id     uuid not null,
    document_id   uuid not null,
    seq           bigint not null check (seq > 0),
    tip           uuid not null,
    codec         smallint not null check (codec in (0, 1)),
    raw_bytes     integer not null check (raw_bytes >= 0),
    state         bytea not null,
    state_vector  bytea not null,
    checksum      bigint not null,
    -- Whose the client ids are: a fold of the log like the state, and stored next to it.
    writers       bytea not null default '',
    created_at    timestamptz not null default now(),
    verified_at   timestamptz not null default now(),
    primary key (tenant_id, document_id, seq),
    foreign key (tenant_id, document_id) references content_items (tenant_id, id)
);
alter table document_snapshots alter column state set storage external;
select isolate_tenant('document_snapshots');
grant select, insert, delete on document_snapshots to contextnexus_application;
grant update (verified_at) on document_snapshots to contextnexus_application;

-- Updates that must not be folded again. Their author can download them.
create table quarantine (
    tenant_id        uuid not null,
    document_id      uuid not null,
    -- BLAKE3 of the update: by it a resend is recognized.
    update_hash      bytea not null check (octet_length(update_hash) = 32),
    -- Its number in the log; null when it never entered.
    seq              bigint check (seq > 0),
    reason           text not null check (reason ~ '^[a-z_]{1,64}$'),
    codec            smallint not null check (codec in (0, 1)),
    raw_bytes        integer not null check (raw_bytes >= 0),
    update           bytea not null,
    user_session_id  uuid,
    user_id          uuid,
    created_at       timestamptz not null default now(),
    primary key (tenant_id, document_id, update_hash),
    foreign key (tenant_id, document_id) references content_items (tenant_id, id)
);
alter table quarantine alter column update set storage external;
create index quarantine_user on quarantine (tenant_id, user_id);
select isolate_tenant('quarantine');
grant select, insert on quarantine to contextnexus_application;
-- Bytes that were refused as a fork and got into the log later, another way, have a number from then on.
grant update (seq) on quarantine to contextnexus_application;

-- Requests that were committed, by the key that their sender chose; per subject, so that two subjects' keys never
-- meet.
create table idempotency_keys (
    tenant_id    uuid not null,
    document_id  uuid not null,
    subject_id   uuid not null,
    key          text not null check (octet_length(key) between 1 and 255),
    body_hash    bytea not null check (octet_length(body_hash) = 32),
    -- The number of the request's last update.
    seq          bigint not null,
    created_at   timestamptz not null default now(),
    primary key (tenant_id, document_id, subject_id, key)
);
-- They are removed by age, a few at a time.
create index idempotency_keys_age on idempotency_keys (tenant_id, created_at);
select isolate_tenant('idempotency_keys');
grant select, insert, delete on idempotency_keys to contextnexus_application;

-- Each document has a head from its first moment, and its head knows the tombstone.
create function keep_document_head() returns trigger
    language plpgsql
    as $$
begin
    if tg_op = 'INSERT' then
        insert into document_heads (tenant_id, document_id, deleted)
        values (new.tenant_id, new.id, new.deleted_at is not null);
    else
        update document_heads set deleted = (new.deleted_at is not null)
         where tenant_id = new.tenant_id and document_id = new.id;
    end if;
    return null;
end
$$;
create trigger keep_document_head_on_insert after insert on content_items
    for each row execute function keep_document_head();
create trigger keep_document_head_on_delete after update of deleted_at on content_items
    for each row when ((old.deleted_at is null) is distinct from (new.deleted_at is null))
    execute function keep_document_head();

-- Of the documents that a node knows at these positions, those whose heads are elsewhere, are deleted, or (without a
-- position) do not exist. Polled like access_epoch, for the same reason as one statement.
create function changed_heads(tenant uuid, documents uuid[], seqs bigint[], tips uuid[])
    returns table (document_id uuid, seq bigint, tip uuid, deleted boolean)
    language plpgsql volatile
    as $$
#variable_conflict use_column
begin
    perform set_config('app.current_tenant_id', tenant::text, true);
    return query
    select known.document_id, h.seq, h.tip, h.deleted
      from unnest(documents, seqs, tips) as known (document_id, seq, tip)
      left join document_heads h on h.tenant_id = tenant and h.document_id = known.document_id
     where h.document_id is null or h.deleted or h.seq <> known.seq or h.tip <> known.tip;
end
$$;
grant execute on function changed_heads(uuid, uuid[], bigint[], uuid[]) to contextnexus_application;
