-- The same append, with each head moved by a statement of its own. As one statement for all, joined with the arrays, it read all heads of the
-- tenant and compared each with every document of the batch: PostgreSQL takes an array for ten rows, and a young table for a small one.
create or replace function append_operations(
    tenant uuid,
    documents uuid[], held_seqs bigint[], held_tips uuid[], new_seqs bigint[], append_ids uuid[],
    row_documents bigint[], seq_froms bigint[], seq_tos bigint[], sessions uuid[], authors uuid[], relays uuid[],
    seen_seqs bigint[], codecs smallint[], sizes integer[], frames bytea[], checksums bigint[],
    key_documents bigint[], key_subjects uuid[], keys text[], key_hashes bytea[], key_seqs bigint[]
) returns table (document bigint, outcome text, seq bigint)
    language plpgsql volatile
    as $$
#variable_conflict use_column
declare
    head record;
    -- Per document: its head is locked, in place, and moves.
    moves boolean[] := array_fill(false, array[cardinality(documents)]);
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
        select w.n, h.deleted, h.seq = w.held_seq and h.tip = w.held_tip as in_place
          from unnest(documents, held_seqs, held_tips) with ordinality as w (document_id, held_seq, held_tip, n)
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
            update document_heads h set seq = new_seqs[head.n], tip = append_ids[head.n]
             where h.tenant_id = tenant and h.document_id = documents[head.n];
        else
            outcome := 'behind';
        end if;
        return next;
    end loop;

    if not (true = any (moves)) then
        return;
    end if;
    insert into operations_log (tenant_id, document_id, seq_from, seq_to, append_id, tip, session_id, author_id,
                                relayed_by, seen_seq, codec, raw_bytes, updates, checksum)
    select tenant, documents[r.n], r.seq_from, r.seq_to, append_ids[r.n], append_ids[r.n], r.session_id, r.author_id,
           r.relayed_by, r.seen_seq, r.codec, r.raw_bytes, r.updates, r.checksum
      from unnest(row_documents, seq_froms, seq_tos, sessions, authors, relays, seen_seqs, codecs, sizes, frames, checksums)
               as r (n, seq_from, seq_to, session_id, author_id, relayed_by, seen_seq, codec, raw_bytes, updates, checksum)
     where moves[r.n];
    if cardinality(keys) > 0 then
        insert into idempotency_keys (tenant_id, document_id, subject_id, key, body_hash, seq)
        select tenant, documents[k.n], k.subject_id, k.key, k.body_hash, k.seq
          from unnest(key_documents, key_subjects, keys, key_hashes, key_seqs) as k (n, subject_id, key, body_hash, seq)
         where moves[k.n];
    end if;
end
$$;
