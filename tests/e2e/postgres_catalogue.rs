//! What the catalogue of a migrated database must say, whatever tables it has. Each rule is also shown to notice its breach.

use crate::support::postgres::TestDatabase;
use sqlx::{AssertSqlSafe, PgConnection};

/// A rule: a query that lists what breaks it.
struct Rule {
    name: &'static str,
    breaches: &'static str,
    /// Something that breaks it.
    breach: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        name: "every table is isolated by tenant, for its owner too",
        breaches: "
            select c.relname::text from pg_class c
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
               and c.relname not in ('tenant_directory', '_sqlx_migrations')
               and not (c.relrowsecurity and c.relforcerowsecurity and (
                   select count(*) = 1 and bool_and(
                              p.polname = 'tenant_isolation_' || c.relname and p.polcmd = '*' and p.polpermissive
                              and p.polroles = '{0}'
                              and pg_get_expr(p.polqual, p.polrelid) = pg_get_expr(p.polwithcheck, p.polrelid)
                              and pg_get_expr(p.polqual, p.polrelid) = format(
                                  '(%I = (NULLIF(current_setting(''app.current_tenant_id''::text, true), ''''::text))::uuid)',
                                  case c.relname when 'tenants' then 'id' else 'tenant_id' end))
                     from pg_policy p where p.polrelid = c.oid))",
        breach: "create table breach (tenant_id uuid primary key); alter table breach enable row level security",
    },
    Rule {
        name: "every key, unique index and foreign key holds the tenant",
        breaches: "
            select i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indrelid
             where i.indisunique and c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
               and c.relname not in ('tenants', 'tenant_directory', '_sqlx_migrations')
               and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'
                                                            and a.attnum = any (i.indkey))
            union all
            select k.conname::text from pg_constraint k join pg_class c on c.oid = k.conrelid
             where k.contype = 'f' and c.relnamespace = 'public'::regnamespace and c.relname <> 'tenant_directory'
               and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id'
                                                            and a.attnum = any (k.conkey))",
        breach: "create table breach (tenant_id uuid, id uuid primary key)",
    },
    Rule {
        name: "every foreign key has an index that starts with its columns",
        breaches: "
            select k.conname::text from pg_constraint k join pg_class c on c.oid = k.conrelid
             where k.contype = 'f' and c.relnamespace = 'public'::regnamespace
               and not exists (select from pg_index i where i.indrelid = k.conrelid
                                  and k.conkey <@ (i.indkey::int2[])[0:cardinality(k.conkey) - 1])",
        breach: "create table breach (tenant_id uuid primary key, creator uuid,
                     foreign key (tenant_id, creator) references users (tenant_id, id))",
    },
    Rule {
        name: "the application owns nothing, creates nothing, truncates nothing, and is bound by every policy",
        breaches: "
            select 'owns ' || c.relname from pg_class c join pg_roles r on r.oid = c.relowner
             where c.relnamespace = 'public'::regnamespace
               and r.rolname in ('contextnexus_application', 'contextnexus_test_app')
            union all
            select 'may ' || privilege || ' ' || c.relname
              from pg_class c, unnest(array['truncate', 'trigger', 'references']) privilege
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
               and has_table_privilege('contextnexus_test_app', c.oid, privilege)
            union all
            select 'may delete ' || name
              from unnest(array['tenants', 'users', 'projects', 'content_items', 'document_heads', 'operations_log', 'quarantine',
                                'tenant_access_epochs']) name
             where has_table_privilege('contextnexus_test_app', name, 'delete')
            union all
            select 'may write ' || name from unnest(array['tenant_directory', '_sqlx_migrations']) name
             where has_any_column_privilege('contextnexus_test_app', name, 'insert')
                or has_any_column_privilege('contextnexus_test_app', name, 'update')
                or has_table_privilege('contextnexus_test_app', name, 'delete')
            union all
            select 'creates in public' where has_schema_privilege('contextnexus_test_app', 'public', 'create')
            union all
            select 'is above the rules' from pg_roles
             where rolname in ('contextnexus_application', 'contextnexus_test_app')
               and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)
            union all
            select 'is a member of ' || g.rolname
              from pg_auth_members m join pg_roles g on g.oid = m.roleid join pg_roles r on r.oid = m.member
             where r.rolname = 'contextnexus_test_app' and g.rolname <> 'contextnexus_application'",
        breach: "grant truncate on users to contextnexus_application",
    },
    Rule {
        name: "the application never writes what triggers keep",
        breaches: "
            select table_name || '.' || column_name from information_schema.column_privileges
             where grantee = 'contextnexus_application' and privilege_type = 'UPDATE'
               and column_name in ('pg_version', 'updated_at', 'created_at', 'tenant_id', 'id', 'token_hash', 'seq_from')",
        breach: "grant update (pg_version) on users to contextnexus_application",
    },
    Rule {
        name: "views ask as their caller, and no materialized view is readable",
        breaches: "
            select c.relname::text from pg_class c
             where c.relnamespace = 'public'::regnamespace
               and ((c.relkind = 'v' and not coalesce('security_invoker=true' = any (c.reloptions), false))
                    or (c.relkind = 'm' and has_table_privilege('contextnexus_test_app', c.oid, 'select')))",
        breach: "create view breach as select * from users",
    },
    Rule {
        name: "only the functions named here run as their owner, with a fixed search path",
        breaches: "
            select p.proname::text from pg_proc p
             where p.pronamespace = 'public'::regnamespace and p.prosecdef
               and (p.proname not in ('keep_tenant_directory')
                    or not coalesce(p.proconfig @> array['search_path=public, pg_temp'], false))",
        breach: "create function breach() returns int language sql security definer as 'select 1'",
    },
    Rule {
        name: "no function is for everybody",
        breaches: "
            select p.proname::text from pg_proc p
             where p.pronamespace = 'public'::regnamespace
               and (p.proacl is null or exists (select from aclexplode(p.proacl) a where a.grantee = 0))",
        breach: "create function breach() returns int language sql as 'select 1'; grant execute on function breach to public",
    },
    Rule {
        name: "every updated_at and pg_version has its trigger",
        breaches: "
            select c.relname || '.' || a.attname
              from pg_class c join pg_attribute a on a.attrelid = c.oid
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
               and a.attname in ('updated_at', 'pg_version')
               and not exists (select from pg_trigger t where t.tgrelid = c.oid
                                  and t.tgname = case a.attname when 'updated_at' then 'update_timestamp' else 'update_pg_version' end)",
        breach: "create table breach (tenant_id uuid primary key, updated_at timestamptz)",
    },
];

async fn breaches(connection: &mut PgConnection, rule: &Rule) -> Vec<String> {
    sqlx::query_scalar(rule.breaches)
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", rule.name))
}

#[tokio::test]
async fn the_catalogue_keeps_every_rule() {
    let database = TestDatabase::create().await;
    let mut connection = database.superuser().await;
    for rule in RULES {
        let found = breaches(&mut connection, rule).await;
        assert!(found.is_empty(), "{}: {found:?}", rule.name);
    }
}

#[tokio::test]
async fn every_rule_of_the_catalogue_notices_its_breach() {
    for rule in RULES {
        let database = TestDatabase::create().await;
        let mut connection = database.superuser().await;
        sqlx::raw_sql(AssertSqlSafe(rule.breach)).execute(&mut connection).await.expect(rule.name);
        let found = breaches(&mut connection, rule).await;
        assert!(!found.is_empty(), "not noticed: {} by `{}`", rule.name, rule.breach);
    }
}
