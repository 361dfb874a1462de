-- What every later migration builds on: the application's group role, and how a table is isolated by tenant and
-- tracks its changes. README.md in this folder has the checklist of a table.
--
-- The role that runs migrations owns everything. The role that serves is a member of `contextnexus_application` and
-- owns nothing.

do $$
begin
    if current_setting('server_version_num')::int < 150000 then
        raise exception 'PostgreSQL 15 or newer is needed, this is %', current_setting('server_version')
            using errcode = 'feature_not_supported';
    end if;
    if not exists (select from pg_roles where rolname = 'contextnexus_application') then
        begin
            create role contextnexus_application nologin nosuperuser nocreatedb nocreaterole nobypassrls noreplication;
        exception
            when duplicate_object then null; -- another database of this cluster is being migrated at this moment
            when insufficient_privilege then
                raise exception 'the role contextnexus_application does not exist, and % may not create it',
                    current_user using errcode = 'insufficient_privilege',
                    hint = 'As an administrator: create role contextnexus_application nologin; '
                        || 'grant contextnexus_application to <the role of DATABASE_URL>;';
        end;
    end if;
end
$$;

revoke create on schema public from public;
grant usage on schema public to contextnexus_application;

-- Nobody may call a function unless it is granted.
alter default privileges revoke execute on functions from public;

-- Binds the running transaction to a tenant. Ends with the transaction: a pooled connection never carries a tenant
-- along.
create function set_tenant_context(tenant uuid) returns void
    language sql volatile
    as $$ select set_config('app.current_tenant_id', tenant::text, true) $$;
grant execute on function set_tenant_context(uuid) to contextnexus_application;

-- Makes a table visible by tenant only, to its owner too. Without a tenant there are no rows, and no error.
create function isolate_tenant(isolated regclass, tenant_column name default 'tenant_id') returns void
    language plpgsql volatile
    as $$
begin
    execute format('alter table %s enable row level security', isolated);
    execute format('alter table %s force row level security', isolated);
    execute format(
        $policy$
        create policy %I on %s
            using (%I = nullif(current_setting('app.current_tenant_id', true), '')::uuid)
            with check (%I = nullif(current_setting('app.current_tenant_id', true), '')::uuid)
        $policy$,
        'tenant_isolation_' || (select relname from pg_class where oid = isolated),
        isolated, tenant_column, tenant_column);
end
$$;

-- `updated_at` and `pg_version` follow the columns that people edit, which `track_changes` names. A write that
-- changes none of them changes neither.
create function update_timestamp() returns trigger
    language plpgsql
    as $$ begin new.updated_at := now(); return new; end $$;

-- The only writer of `pg_version`. An update compares it and never sets it.
create function update_pg_version() returns trigger
    language plpgsql
    as $$ begin new.pg_version := old.pg_version + 1; return new; end $$;

-- Keeps `updated_at` and `pg_version` of a table: both change with a write that changes one of these columns.
create function track_changes(tracked regclass, columns name[]) returns void
    language plpgsql volatile
    as $$
declare
    condition text;
    keeper name;
begin
    select format('(%s) is distinct from (%s)', string_agg(format('old.%I', name), ', ' order by place),
                  string_agg(format('new.%I', name), ', ' order by place))
      into strict condition
      from unnest(columns) with ordinality as tracked_columns (name, place);
    foreach keeper in array '{update_timestamp, update_pg_version}'::name[] loop
        execute format('create trigger %I before update on %s for each row when (%s) execute function %I()',
                       keeper, tracked, condition, keeper);
    end loop;
end
$$;
