-- The append of many documents' batches: one call, one round trip, one transaction of its own. Arrays, because a statement per
-- row is what costs PostgreSQL most.
--
-- Per document (arguments 2 to 6, ordered by id): locks its head unless somebody else has it, compares it with the position that
-- the writer holds, moves it, and inserts the document's rows. A document whose head is elsewhere is left out: its outcome is
-- 'behind' or 'deleted', and a document without an outcome is behind too (its head is locked by another, or is not there).
--
-- Waits for no head. Runs as its caller: row-level security holds in here.
create function append_operations(
    tenant uuid,
    documents uuid[], held_seqs bigint[], held_tips uuid[], new_seqs bigint[], append_ids uuid[],
    -- Per row; `row_documents` counts from 1 into `documents`.
    row_documents bigint[], seq_froms bigint[], seq_tos bigint[], sessions uuid[], authors uuid[], relays uuid[],
    seen_seqs bigint[], codecs smallint[], sizes integer[], frames bytea[], checksums bigint[],
    -- Per idempotency key.
    key_documents bigint[], key_subjects uuid[], keys text[], key_hashes bytea[], key_seqs bigint[]
) returns table (document bigint, outcome text, seq bigint)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    settled bigint[] := '{}';
begin
    perform set_config('app.current_tenant_id', tenant::text, true);
    -- Never acknowledged before it is on disk, whatever the database's default; a stronger default stays.
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    -- A key that is there was committed together with a move of the head. So this needs no lock: where the key comes in after
    -- this look, the head is no longer where the writer holds it.
    if cardinality(keys) > 0 then
        return query
            select k.n, case when i.body_hash = k.body_hash then 'done' else 'conflict' end, i.seq
              from unnest(key_documents, key_subjects, keys, key_hashes) as k (n, subject_id, key, body_hash)
              join idempotency_keys i on i.tenant_id = tenant and i.document_id = documents[k.n]
                                     and i.subject_id = k.subject_id and i.key = k.key;
        settled := array(
            select k.n
              from unnest(key_documents, key_subjects, keys) as k (n, subject_id, key)
              join idempotency_keys i on i.tenant_id = tenant and i.document_id = documents[k.n]
                                     and i.subject_id = k.subject_id and i.key = k.key);
    end if;

    return query
        with wanted as materialized (
            select * from unnest(documents, held_seqs, held_tips, new_seqs, append_ids) with ordinality
                       as w (document_id, held_seq, held_tip, new_seq, append_id, n)
        ), locked as materialized (
            select w.n, w.document_id, w.new_seq, w.append_id, h.deleted, h.seq = w.held_seq and h.tip = w.held_tip as in_place
              from wanted w
              join document_heads h on h.tenant_id = tenant and h.document_id = w.document_id
             where w.n <> all (settled)
             order by w.document_id
               for no key update of h skip locked
        ), moved as (
            update document_heads h set seq = l.new_seq, tip = l.append_id
              from locked l
             where h.tenant_id = tenant and h.document_id = l.document_id and l.in_place and not l.deleted
            returning l.n, h.document_id, h.tip
        ), written as (
            insert into operations_log (tenant_id, document_id, seq_from, seq_to, append_id, tip, session_id, author_id,
                                        relayed_by, seen_seq, codec, raw_bytes, updates, checksum)
            select tenant, m.document_id, r.seq_from, r.seq_to, m.tip, m.tip, r.session_id, r.author_id,
                   r.relayed_by, r.seen_seq, r.codec, r.raw_bytes, r.updates, r.checksum
              from unnest(row_documents, seq_froms, seq_tos, sessions, authors, relays, seen_seqs, codecs, sizes, frames, checksums)
                       as r (n, seq_from, seq_to, session_id, author_id, relayed_by, seen_seq, codec, raw_bytes, updates, checksum)
              join moved m on m.n = r.n
        ), keyed as (
            insert into idempotency_keys (tenant_id, document_id, subject_id, key, body_hash, seq)
            select tenant, m.document_id, k.subject_id, k.key, k.body_hash, k.seq
              from unnest(key_documents, key_subjects, keys, key_hashes, key_seqs) as k (n, subject_id, key, body_hash, seq)
              join moved m on m.n = k.n
        )
        select l.n, case when l.deleted then 'deleted' when m.n is null then 'behind' else 'committed' end, l.new_seq
          from locked l left join moved m on m.n = l.n;
end
$$;
grant execute on function append_operations(uuid, uuid[], bigint[], uuid[], bigint[], uuid[], bigint[], bigint[], bigint[], uuid[],
    uuid[], uuid[], bigint[], smallint[], integer[], bytea[], bigint[], bigint[], uuid[], text[], bytea[], bigint[])
    to contextnexus_application;
