-- What every node asks about its open documents several times a second, whether anything happens or not: each a statement that binds itself to
-- its tenant. As a transaction of several statements it took three round trips, of which one was the question.
create function access_epoch(tenant uuid) returns bigint
    language plpgsql volatile
    as $$
begin
    perform set_config('app.current_tenant_id', tenant::text, true);
    return (select e.epoch from tenant_access_epochs e where e.tenant_id = tenant);
end
$$;
grant execute on function access_epoch(uuid) to contextnexus_application;

-- Of the documents that somebody holds at these positions, those whose heads stand elsewhere, are deleted, or (without a position) are not there.
create function changed_heads(tenant uuid, documents uuid[], seqs bigint[], tips uuid[])
    returns table (document_id uuid, seq bigint, tip uuid, deleted boolean)
    language plpgsql volatile
    as $$
#variable_conflict use_column
begin
    perform set_config('app.current_tenant_id', tenant::text, true);
    return query
    select held.document_id, h.seq, h.tip, h.deleted
      from unnest(documents, seqs, tips) as held (document_id, seq, tip)
      left join document_heads h on h.tenant_id = tenant and h.document_id = held.document_id
     where h.document_id is null or h.deleted or h.seq <> held.seq or h.tip <> held.tip;
end
$$;
grant execute on function changed_heads(uuid, uuid[], bigint[], uuid[]) to contextnexus_application;
