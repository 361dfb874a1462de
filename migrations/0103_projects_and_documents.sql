create table projects (
    tenant_id              uuid not null references tenants (id),
    id                     uuid not null,
    slug                   text not null check (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    name                   text not null check (octet_length(name) between 1 and 400),
    -- A room that does not exist is created when a user who may write connects to it.
    auto_create_documents  boolean not null default false,
    -- The project of a room whose name has no project.
    is_default             boolean not null default false,
    -- Readable, and writable by nobody.
    is_archived            boolean not null default false,
    created_by             uuid,
    created_at             timestamptz not null default now(),
    updated_at             timestamptz not null default now(),
    pg_version             bigint not null default 1,
    primary key (tenant_id, id),
    constraint projects_slug_key unique (tenant_id, slug),
    foreign key (tenant_id, created_by) references users (tenant_id, id) on delete set null (created_by)
);
create unique index projects_default_key on projects (tenant_id) where is_default;
create index projects_created_by on projects (tenant_id, created_by);
select isolate_tenant('projects');
grant select, insert on projects to contextnexus_application;
grant update (slug, name, auto_create_documents, is_default, is_archived) on projects to contextnexus_application;
select track_changes('projects', '{slug, name, auto_create_documents, is_default, is_archived}');

create table project_memberships (
    tenant_id   uuid not null,
    project_id  uuid not null,
    user_id     uuid not null,
    role        text not null check (role in ('viewer', 'editor', 'admin')),
    created_by  uuid,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    pg_version  bigint not null default 1,
    primary key (tenant_id, project_id, user_id),
    foreign key (tenant_id, project_id) references projects (tenant_id, id) on delete cascade,
    foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade,
    foreign key (tenant_id, created_by) references users (tenant_id, id) on delete set null (created_by)
);
create index project_memberships_user on project_memberships (tenant_id, user_id);
create index project_memberships_created_by on project_memberships (tenant_id, created_by);
select isolate_tenant('project_memberships');
grant select, insert, delete on project_memberships to contextnexus_application;
grant update (role) on project_memberships to contextnexus_application;
select track_changes('project_memberships', '{role}');

create table content_items (
    tenant_id     uuid not null,
    id            uuid not null,
    project_id    uuid not null,
    content_type  text not null default 'document' check (content_type = 'document'),
    -- How clients name the room. Unique in its project, former names and deleted documents included. Which names are
    -- allowed is in one place, contextnexus_actors::room. The table holds only what keeps a row readable, so that a
    -- document that has its name from before a rule can still be renamed, deleted and restored. A name may be a UUID
    -- or 32 hexadecimal digits, as Yjs names sub-documents; a room that is named like an id leads to the document of
    -- that id first (src/postgres/authority/lookup.rs).
    name          text not null check (
                      octet_length(name) between 1 and 200 and name is nfc normalized and name !~ '[[:cntrl:]]'),
    -- What people read in a list.
    title         text not null check (octet_length(title) between 1 and 1000),
    created_by    uuid,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    -- The tombstone. The name stays taken and the log whole; nobody reads or writes the document until it is
    -- restored.
    deleted_at    timestamptz,
    deleted_by    uuid,
    pg_version    bigint not null default 1,
    primary key (tenant_id, id),
    constraint content_items_name_key unique (tenant_id, project_id, name),
    constraint content_items_in_project unique (tenant_id, project_id, id), -- lists page by it, aliases refer to it
    foreign key (tenant_id, project_id) references projects (tenant_id, id),
    foreign key (tenant_id, created_by) references users (tenant_id, id) on delete set null (created_by),
    foreign key (tenant_id, deleted_by) references users (tenant_id, id) on delete set null (deleted_by)
);
create index content_items_created_by on content_items (tenant_id, created_by);
create index content_items_deleted_by on content_items (tenant_id, deleted_by);
select isolate_tenant('content_items');
-- No DELETE: a document ends with a tombstone.
grant select, insert on content_items to contextnexus_application;
grant update (name, title, deleted_at, deleted_by) on content_items to contextnexus_application;
select track_changes('content_items', '{name, title, deleted_at}');

-- Former names of a document, which lead to it until somebody frees them.
create table document_aliases (
    tenant_id    uuid not null,
    project_id   uuid not null,
    name         text not null,
    document_id  uuid not null,
    created_at   timestamptz not null default now(),
    primary key (tenant_id, project_id, name),
    foreign key (tenant_id, project_id, document_id)
        references content_items (tenant_id, project_id, id) on delete cascade
);
create index document_aliases_document on document_aliases (tenant_id, project_id, document_id);
select isolate_tenant('document_aliases');
grant select, insert, delete on document_aliases to contextnexus_application;

-- A rename leaves the old name behind as an alias; a new name must not be another document's alias. An alias comes
-- only from a name, which the unique key had given to one document alone, so no two transactions can end with one
-- name leading to two.
create function keep_document_names() returns trigger
    language plpgsql
    as $$
begin
    if tg_op = 'UPDATE' then
        insert into document_aliases (tenant_id, project_id, name, document_id)
        values (old.tenant_id, old.project_id, old.name, old.id);
        delete from document_aliases
         where tenant_id = new.tenant_id and project_id = new.project_id and name = new.name and document_id = new.id;
    end if;
    if exists (select from document_aliases
                where tenant_id = new.tenant_id and project_id = new.project_id and name = new.name) then
        raise unique_violation using
            message = 'the name is a former name of another document', constraint = 'document_aliases_pkey',
            table = 'document_aliases', schema = 'public';
    end if;
    return null;
end
$$;
create trigger keep_document_names_on_insert after insert on content_items
    for each row execute function keep_document_names();
create trigger keep_document_names_on_rename after update of name on content_items
    for each row when (old.name is distinct from new.name) execute function keep_document_names();
