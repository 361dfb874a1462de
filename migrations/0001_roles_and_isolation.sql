-- What every later migration stands on: the application's group role, and how a table becomes one that tenants cannot leave.
--
-- The role that runs migrations owns everything. The role that serves is a member of `contextnexus_application` and owns nothing.

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
                raise exception 'the role contextnexus_application does not exist, and % may not create it', current_user
                    using errcode = 'insufficient_privilege',
                    hint = 'As an administrator: create role contextnexus_application nologin; '
                        || 'grant contextnexus_application to <the role of DATABASE_URL>;';
        end;
    end if;
end
$$;

revoke create on schema public from public;
grant usage on schema public to contextnexus_application;

-- Functions are not for everybody, unless granted.
alter default privileges revoke execute on functions from public;

-- Binds the running transaction to a tenant. Ends with the transaction: a pooled connection never carries a tenant along.
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
        'tenant_isolation_' || (select relname from pg_class where oid = isolated), isolated, tenant_column, tenant_column);
end
$$;

-- `updated_at` and `pg_version` follow the columns that people edit, named in the trigger's condition; a write that changes
-- none of them changes neither.
create function update_timestamp() returns trigger
    language plpgsql
    as $$ begin new.updated_at := now(); return new; end $$;

-- The only writer of `pg_version`: whoever updates compares it, and never sets it.
create function update_pg_version() returns trigger
    language plpgsql
    as $$ begin new.pg_version := old.pg_version + 1; return new; end $$;
