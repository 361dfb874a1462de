-- The append of one row to one document, by far the most frequent one: the same decisions as append_operations, without arrays to take apart
-- (a quarter of its time). Answers 'committed', 'behind' or 'deleted'.
create function append_operation(
    tenant uuid, document uuid, held_seq bigint, held_tip uuid, append_id uuid, seq_to bigint, session uuid, author uuid,
    relay uuid, seen_seq bigint, codec smallint, size integer, frame bytea, checksum bigint
) returns text
    language plpgsql volatile
    as $$
#variable_conflict use_variable
declare
    head record;
begin
    perform set_config('app.current_tenant_id', tenant::text, true);
    -- Never acknowledged before it is on disk, whatever the database's default; a stronger default stays.
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    select h.deleted, h.seq = held_seq and h.tip = held_tip as in_place into head
      from document_heads h
     where h.tenant_id = tenant and h.document_id = document
       for no key update skip locked;
    if not found then
        return 'behind'; -- another node holds it
    elsif head.deleted then
        return 'deleted';
    elsif not head.in_place then
        return 'behind';
    end if;
    update document_heads h set seq = seq_to, tip = append_id where h.tenant_id = tenant and h.document_id = document;
    insert into operations_log (tenant_id, document_id, seq_from, seq_to, append_id, tip, session_id, author_id,
                                relayed_by, seen_seq, codec, raw_bytes, updates, checksum)
    values (tenant, document, held_seq + 1, seq_to, append_id, append_id, session, author, relay, seen_seq, codec, size, frame,
            checksum);
    return 'committed';
end
$$;

grant execute on function append_operation(
    uuid, uuid, bigint, uuid, uuid, bigint, uuid, uuid, uuid, bigint, smallint, integer, bytea, bigint
) to contextnexus_application;
