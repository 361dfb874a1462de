-- Writing to the log: the batches of one or more documents of a tenant in one call, one round trip, one transaction
-- of its own. Both functions run as their caller: row-level security applies in them. Neither waits for a head that
-- another has locked.
--
-- What was measured, and what the functions are made of:
-- - Arrays instead of a statement per row, which costs PostgreSQL most.
-- - Each head is found through both columns of its index (`cross join lateral … for no key update skip locked`).
--   Joined by tenant alone, as a plan made while the tables were small did, an append read the heads of all the
--   tenant's documents.
-- - All heads are moved by one upsert, a fifth less work per document than a statement each. It goes to each head by
--   the primary key. An UPDATE joined with the arrays read all heads of the tenant and compared each with every
--   document of the batch: PostgreSQL estimates an array at ten rows, and a young table as small.
-- - document_heads and operations_log have no check constraints: PostgreSQL parses the constraints of a table again
--   in each statement that writes to it, a sixth of an append. The functions check instead: a number that makes no
--   sense becomes null, which no column takes, or is refused.
-- - One row of one document, by far the most frequent append, has a function of its own, without arrays: it takes a
--   quarter less.

-- Per document (arguments 2 to 6, ordered by id): locks its head unless another has, compares it with the position
-- that the writer builds on, moves it, and inserts the document's rows. A document whose head is elsewhere is left
-- out: its outcome is 'behind' or 'deleted'. A document without an outcome is behind too: its head is locked by
-- another, or does not exist.
create function append_operations(
    tenant uuid,
    documents uuid[], base_seqs bigint[], base_tips uuid[], new_seqs bigint[], append_ids uuid[],
    -- Per row; `row_documents` counts from 1 into `documents`.
    row_documents bigint[], seq_froms bigint[], seq_tos bigint[], user_session_ids uuid[], author_ids uuid[],
    relayed_by uuid[], seen_seqs bigint[], codecs smallint[], raw_bytes integer[], updates bytea[], checksums bigint[],
    -- Per idempotency key.
    key_documents bigint[], key_subjects uuid[], keys text[], key_hashes bytea[], key_seqs bigint[]
) returns table (document bigint, outcome text, seq bigint)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    head record;
    -- Per document: its head is locked, in place, and moves.
    moves boolean[] := array_fill(false, array[cardinality(documents)]);
    moved bigint[] := '{}';
    settled bigint[] := '{}';
begin
    perform set_config('app.current_tenant_id', tenant::text, true);
    -- Nothing is acknowledged before it is on disk, whatever the database's default is. A stronger default stays.
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    -- A key that exists was committed together with a move of the head. So this needs no lock: if the key comes in
    -- after this query, the head is no longer where the writer knows it.
    if cardinality(keys) > 0 then
        for head in
            select k.n, i.body_hash = k.body_hash as same, i.seq as done_seq
              from unnest(key_documents, key_subjects, keys, key_hashes) as k (n, subject_id, key, body_hash)
              cross join lateral (select * from idempotency_keys i
                                   where i.tenant_id = tenant and i.document_id = documents[k.n]
                                     and i.subject_id = k.subject_id and i.key = k.key offset 0) as i
        loop
            settled := settled || head.n;
            document := head.n;
            outcome := case when head.same then 'done' else 'conflict' end;
            seq := head.done_seq;
            return next;
        end loop;
    end if;

    for head in
        select w.n, h.deleted, h.seq = w.base_seq and h.tip = w.base_tip as in_place
          from unnest(documents, base_seqs, base_tips) with ordinality as w (document_id, base_seq, base_tip, n)
          cross join lateral (select * from document_heads h
                               where h.tenant_id = tenant and h.document_id = w.document_id
                                 for no key update skip locked) as h
         where w.n <> all (settled)
    loop
        document := head.n;
        seq := new_seqs[head.n];
        if head.deleted then
            outcome := 'deleted';
        elsif head.in_place then
            outcome := 'committed';
            moves[head.n] := true;
            moved := moved || head.n;
        else
            outcome := 'behind';
        end if;
        return next;
    end loop;

    if moved = '{}' then
        return;
    end if;
    -- All of them exist and are locked. An upsert goes to each by the primary key, whatever the planner believes
    -- about the tables.
    insert into document_heads (tenant_id, document_id, seq, tip)
    select tenant, documents[m.n], case when new_seqs[m.n] > base_seqs[m.n] then new_seqs[m.n] end, append_ids[m.n]
      from unnest(moved) as m (n)
        on conflict (tenant_id, document_id) do update set seq = excluded.seq, tip = excluded.tip;
    insert into operations_log (tenant_id, document_id, seq_from, seq_to, append_id, tip, user_session_id, author_id,
                                relayed_by, seen_seq, codec, raw_bytes, updates, checksum)
    select tenant, documents[r.n], case when r.seq_from > 0 then r.seq_from end,
           case when r.seq_to >= r.seq_from then r.seq_to end, append_ids[r.n], append_ids[r.n],
           r.user_session_id, r.author_id, r.relayed_by, r.seen_seq, case when r.codec in (0, 1) then r.codec end,
           case when r.raw_bytes >= 0 then r.raw_bytes end, r.updates, r.checksum
      from unnest(row_documents, seq_froms, seq_tos, user_session_ids, author_ids, relayed_by, seen_seqs, codecs,
                  raw_bytes, updates, checksums)
               as r (n, seq_from, seq_to, user_session_id, author_id, relayed_by, seen_seq, codec, raw_bytes, updates,
                     checksum)
     where moves[r.n];
    if cardinality(keys) > 0 then
        insert into idempotency_keys (tenant_id, document_id, subject_id, key, body_hash, seq)
        select tenant, documents[k.n], k.subject_id, k.key, k.body_hash, k.seq
          from unnest(key_documents, key_subjects, keys, key_hashes, key_seqs) as k (n, subject_id, key, body_hash, seq)
         where moves[k.n];
    end if;
end
$$;
grant execute on function append_operations to contextnexus_application;

-- The same decisions for one row of one document. Answers 'committed', 'behind' or 'deleted'.
create function append_operation(
    tenant uuid, document uuid, base_seq bigint, base_tip uuid, append_id uuid, seq_to bigint,
    user_session_id uuid, author_id uuid, relayed_by uuid, seen_seq bigint, codec smallint, raw_bytes integer,
    updates bytea, checksum bigint
) returns text
    language plpgsql volatile
    as $$
#variable_conflict use_variable
declare
    head record;
begin
    if base_seq < 0 or seq_to <= base_seq or codec not in (0, 1) or raw_bytes < 0 then
        raise exception 'an append whose numbers make no sense' using errcode = 'check_violation';
    end if;
    perform set_config('app.current_tenant_id', tenant::text, true);
    -- As in append_operations.
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    select h.deleted, h.seq = base_seq and h.tip = base_tip as in_place into head
      from document_heads h
     where h.tenant_id = tenant and h.document_id = document
       for no key update skip locked;
    if not found then
        return 'behind'; -- another node has locked it
    elsif head.deleted then
        return 'deleted';
    elsif not head.in_place then
        return 'behind';
    end if;
    update document_heads h set seq = seq_to, tip = append_id where h.tenant_id = tenant and h.document_id = document;
    insert into operations_log (tenant_id, document_id, seq_from, seq_to, append_id, tip, user_session_id, author_id,
                                relayed_by, seen_seq, codec, raw_bytes, updates, checksum)
    values (tenant, document, base_seq + 1, seq_to, append_id, append_id, user_session_id, author_id, relayed_by,
            seen_seq, codec, raw_bytes, updates, checksum);
    return 'committed';
end
$$;
grant execute on function append_operation to contextnexus_application;
