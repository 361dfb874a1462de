-- The log of each document is the document; everything else is made from it.

-- Where each log ends. Apart from content_items, so that an edit never touches the row that a rename locks. Half-empty pages
-- keep the update of a head on its page, without a new index entry.
create table document_heads (
    tenant_id    uuid not null,
    document_id  uuid not null,
    seq          bigint not null default 0 check (seq >= 0),
    tip          uuid not null default '00000000-0000-0000-0000-000000000000',
    deleted      boolean not null default false,
    primary key (tenant_id, document_id),
    -- No cascade: what was written is not lost with a row of metadata.
    foreign key (tenant_id, document_id) references content_items (tenant_id, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
select isolate_tenant('document_heads');
grant select, insert on document_heads to contextnexus_application;
grant update (seq, tip, deleted) on document_heads to contextnexus_application;

-- One row per session and append. No foreign key and no second index: this is the hot path. Nothing is ever deleted.
create table operations_log (
    tenant_id    uuid not null,
    document_id  uuid not null,
    seq_from     bigint not null check (seq_from > 0),
    seq_to       bigint not null check (seq_to >= seq_from),
    -- How the writer finds its rows again after a COMMIT without an answer.
    append_id    uuid not null,
    tip          uuid not null,
    session_id   uuid not null,
    author_id    uuid,
    relayed_by   uuid,
    seen_seq     bigint not null,
    -- 0: as they are, 1: lz4 block. `raw_bytes` is the length before compression; it bounds decompression.
    codec        smallint not null check (codec in (0, 1)),
    raw_bytes    integer not null check (raw_bytes >= 0),
    -- Each update as its length (u32, little endian) and its bytes. Empty: in quarantine.
    updates      bytea not null,
    -- CRC-32 over document, numbers and the uncompressed frames.
    checksum     bigint not null,
    at           timestamptz not null default clock_timestamp(),
    primary key (tenant_id, document_id, seq_from)
);
alter table operations_log alter column updates set storage external; -- compressed already where it pays
select isolate_tenant('operations_log');
grant select, insert on operations_log to contextnexus_application;
grant update (tip, codec, raw_bytes, updates, checksum) on operations_log to contextnexus_application; -- quarantine only

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
    created_at    timestamptz not null default now(),
    verified_at   timestamptz not null default now(),
    primary key (tenant_id, document_id, seq),
    foreign key (tenant_id, document_id) references content_items (tenant_id, id)
);
alter table document_snapshots alter column state set storage external;
select isolate_tenant('document_snapshots');
grant select, insert, delete on document_snapshots to contextnexus_application;
grant update (verified_at) on document_snapshots to contextnexus_application;

-- Updates that must not be folded again. Their user may download them.
create table quarantine (
    tenant_id    uuid not null,
    document_id  uuid not null,
    -- BLAKE3 of the update: by it a resend is known.
    update_hash  bytea not null check (octet_length(update_hash) = 32),
    -- Its number in the log; null when it never entered.
    seq          bigint check (seq > 0),
    reason       text not null check (reason ~ '^[a-z_]{1,64}$'),
    codec        smallint not null check (codec in (0, 1)),
    raw_bytes    integer not null check (raw_bytes >= 0),
    update       bytea not null,
    session_id   uuid,
    user_id      uuid,
    created_at   timestamptz not null default now(),
    primary key (tenant_id, document_id, update_hash),
    foreign key (tenant_id, document_id) references content_items (tenant_id, id)
);
alter table quarantine alter column update set storage external;
create index quarantine_user on quarantine (tenant_id, user_id);
select isolate_tenant('quarantine');
grant select, insert on quarantine to contextnexus_application;

-- Requests that were committed, by the key that their sender chose; per subject, so that nobody meets another's keys.
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
