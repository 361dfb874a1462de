create table tenants (
    id          uuid primary key,
    slug        text not null unique check (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    domain      text unique check (domain = lower(domain) and octet_length(domain) between 1 and 253),
    name        text not null check (octet_length(name) between 1 and 400),
    is_active   boolean not null default true,
    -- Authenticates what nodes tell each other about the tenant through Redis, which is trusted with nothing. Two
    -- random UUIDs hold more than the 128 random bits that such a key needs.
    bus_key     bytea not null default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
                check (octet_length(bus_key) = 32),
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    pg_version  bigint not null default 1
);
select isolate_tenant('tenants', 'id');
-- Tenants are switched off, not deleted: removing one is a staged job of its own.
grant select, insert on tenants to contextnexus_application;
grant update (slug, domain, name, is_active) on tenants to contextnexus_application;
select track_changes('tenants', '{slug, domain, name, is_active}');

-- The only table that is read without a tenant: a login finds its tenant here. Only the trigger writes it.
create table tenant_directory (
    id         uuid primary key references tenants (id) on delete cascade,
    slug       text not null unique,
    domain     text unique,
    is_active  boolean not null
);
grant select on tenant_directory to contextnexus_application;

-- SECURITY DEFINER, because the application may not write the directory. It writes only the row of the tenant that
-- changed.
create function keep_tenant_directory() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    insert into tenant_directory (id, slug, domain, is_active) values (new.id, new.slug, new.domain, new.is_active)
    on conflict (id) do update set slug = excluded.slug, domain = excluded.domain, is_active = excluded.is_active;
    return null;
end
$$;
create trigger keep_tenant_directory after insert or update of slug, domain, is_active on tenants
    for each row execute function keep_tenant_directory();

create table users (
    tenant_id         uuid not null references tenants (id),
    id                uuid not null,
    kind              text not null check (kind in ('person', 'external', 'service')),
    -- Lower case, so that one mailbox is one user.
    email             text check (email = lower(email) and octet_length(email) <= 320
                                  and email ~ '^[^@\s[:cntrl:]]+@[^@\s[:cntrl:]]+$'),
    external_subject  text check (octet_length(external_subject) between 1 and 512),
    name              text not null check (octet_length(name) between 1 and 400),
    -- argon2id, as a PHC string. Null: the user signs in by token only.
    password_hash     text check (password_hash like '$argon2id$%'),
    is_active         boolean not null default true,
    is_tenant_admin   boolean not null default false,
    last_login_at     timestamptz,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    pg_version        bigint not null default 1,
    primary key (tenant_id, id),
    constraint users_email_key unique (tenant_id, email),
    constraint users_external_subject_key unique (tenant_id, external_subject),
    constraint users_person_has_email check (kind <> 'person' or email is not null),
    constraint users_external_has_subject check ((kind = 'external') = (external_subject is not null)),
    constraint users_password_is_a_persons check (password_hash is null or kind = 'person'),
    constraint users_external_administers_nothing check (kind <> 'external' or not is_tenant_admin)
);
select isolate_tenant('users');
-- Users are switched off, not deleted: what they wrote keeps its author.
grant select, insert on users to contextnexus_application;
grant update (email, name, password_hash, is_active, is_tenant_admin, last_login_at)
    on users to contextnexus_application;
select track_changes('users', '{email, name, password_hash, is_active, is_tenant_admin}');
