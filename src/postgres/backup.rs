//! What backups ask of PostgreSQL, outside any pool: an instant that is read whole, across all tenants; sums of what is
//! in it, by which a restored database is compared with its source; and whether a database is empty.

use super::{StoreError, parse, probe};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// The role of `DATABASE_BACKUP_URL` by its usual name: it may read everything, of every tenant, and change nothing.
pub const BACKUP_ROLE: &str = "contextnexus_backup";

/// Makes such a role. Only a superuser may.
pub const MAKE_BACKUP_ROLE: &str =
    "create role contextnexus_backup login bypassrls password '…' in role pg_read_all_data;";

/// What a role may read.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// Row-level security does not bind it.
    pub reads_all_tenants: bool,
    /// A table that it may not read.
    pub closed_table: Option<String>,
}

impl Reader {
    /// Whether a dump that it makes is whole.
    #[must_use]
    pub fn reads_all(&self) -> bool {
        self.reads_all_tenants && self.closed_table.is_none()
    }
}

/// Looks at the role of this address.
pub async fn reader(url: &str) -> Result<Reader, StoreError> {
    let mut connection = PgConnection::connect_with(&parse(url)?).await?;
    let row = sqlx::query(
        "select rolname::text, rolsuper or rolbypassrls,
                (select min(c.relname::text) from pg_class c
                  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
                    and not has_table_privilege(c.oid, 'select'))
           from pg_roles where rolname = current_user",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await.ok();
    Ok(Reader { name: row.try_get(0)?, reads_all_tenants: row.try_get(1)?, closed_table: row.try_get(2)? })
}

/// How many rows a table has, and a sum over all that is in them that does not depend on their order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableSum {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: i64,
    /// Of the hashes of the rows. None for the log, which is summed by document.
    pub sum: Option<String>,
}

/// One instant of a database. Others that are given its name read the same one, as long as this lives.
pub struct Snapshot {
    connection: PgConnection,
    /// Its name, for `pg_dump --snapshot`.
    pub name: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// As PostgreSQL counts: 150004 is 15.4.
    pub server_version: i32,
    /// Newest migration; 0 where there was none.
    pub schema: i64,
    /// The size of the database's files.
    pub bytes: i64,
}

/// The log, one sum for all of it would not say where a difference is.
const LOG: &str = "operations_log";

impl Snapshot {
    /// Takes it. Fails where the role would not see every row.
    pub async fn take(url: &str) -> Result<Self, StoreError> {
        // What a value looks like as text must not depend on the server's settings. `row_security` off: a policy that
        // would hide rows is an error instead.
        let options = parse(url)?.options([
            ("row_security", "off"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("timezone", "UTC"),
            ("datestyle", "ISO, MDY"),
            ("intervalstyle", "postgres"),
            ("bytea_output", "hex"),
            ("extra_float_digits", "1"),
        ]);
        let mut connection = PgConnection::connect_with(&options).await?;
        sqlx::raw_sql("begin isolation level repeatable read read only").execute(&mut connection).await?;
        let row = sqlx::query(
            "select pg_export_snapshot(), now(), current_setting('server_version_num')::int,
                    pg_database_size(current_database()), to_regclass('public._sqlx_migrations') is not null",
        )
        .fetch_one(&mut connection)
        .await?;
        let schema = if row.try_get(4)? {
            sqlx::query_scalar("select coalesce(max(version), 0) from public._sqlx_migrations")
                .fetch_one(&mut connection)
                .await?
        } else {
            0
        };
        Ok(Self {
            name: row.try_get(0)?,
            taken_at: row.try_get(1)?,
            server_version: row.try_get(2)?,
            bytes: row.try_get(3)?,
            schema,
            connection,
        })
    }

    /// Sums of all tables, by name.
    pub async fn tables(&mut self) -> Result<Vec<TableSum>, StoreError> {
        let names: Vec<String> = sqlx::query_scalar(
            "select c.relname::text from pg_class c
              where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
                and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
              order by 1",
        )
        .fetch_all(&mut self.connection)
        .await?;
        let mut sums = Vec::with_capacity(names.len());
        for name in names {
            let template = if name == LOG {
                "select count(*), null from public.%I t"
            } else {
                "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from public.%I t"
            };
            let statement: String = sqlx::query_scalar("select format($1, $2)")
                .bind(template)
                .bind(&name)
                .fetch_one(&mut self.connection)
                .await?;
            let row = sqlx::query(AssertSqlSafe(statement)).fetch_one(&mut self.connection).await?;
            sums.push(TableSum { rows: row.try_get(0)?, sum: row.try_get(1)?, name });
        }
        Ok(sums)
    }

    /// A line for each document, by tenant and id: its head, and of its log the rows, the bytes and a sum over all that
    /// is in them; separated by tabs. The line is compared as a whole.
    pub async fn documents<E: From<StoreError>>(
        &mut self,
        mut line: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let statement = "select concat_ws(E'\\t', h.tenant_id, h.document_id, h.seq, h.tip, h.deleted,
                           coalesce(l.rows, 0), coalesce(l.bytes, 0), coalesce(l.sum, 0))
              from public.document_heads h
              left join (select o.tenant_id, o.document_id, count(*) as rows, sum(octet_length(o.updates)) as bytes,
                                sum(hashtextextended(o::text, 0)::numeric) as sum
                           from public.operations_log o group by 1, 2) l
                on l.tenant_id = h.tenant_id and l.document_id = h.document_id
             order by h.tenant_id, h.document_id";
        let mut lines = sqlx::query_scalar::<_, String>(statement).fetch(&mut self.connection);
        while let Some(next) = lines.try_next().await.map_err(StoreError::from)? {
            line(&next)?;
        }
        Ok(())
    }

    /// Ends it.
    pub async fn close(self) {
        self.connection.close().await.ok();
    }
}

/// Who and what is in a database that is to be restored into.
#[derive(Clone, Debug)]
pub struct Occupancy {
    /// Tables in it.
    pub tables: i64,
    /// Other sessions in it.
    pub sessions: i64,
    /// Whether the role that serves, and the rights of the tables refer to, exists.
    pub has_application_role: bool,
    /// As PostgreSQL counts.
    pub server_version: i32,
}

/// Looks at it as its owner.
pub async fn occupancy(owner_url: &str) -> Result<Occupancy, StoreError> {
    let mut connection = PgConnection::connect_with(&parse(owner_url)?).await?;
    let row = sqlx::query(
        "select (select count(*) from pg_class c
                  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
                    and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')),
                (select count(*) from pg_stat_activity
                  where datname = current_database() and pid <> pg_backend_pid() and usename is not null),
                exists (select from pg_roles where rolname = 'contextnexus_application'),
                current_setting('server_version_num')::int",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await.ok();
    Ok(Occupancy {
        tables: row.try_get(0)?,
        sessions: row.try_get(1)?,
        has_application_role: row.try_get(2)?,
        server_version: row.try_get(3)?,
    })
}

/// Drops everything in the schema `public`, in one transaction, as its owner. What an extension brought stays.
pub async fn empty(owner_url: &str) -> Result<(), StoreError> {
    let options = parse(owner_url)?.options([("lock_timeout", "60000"), ("client_min_messages", "warning")]);
    let mut connection = PgConnection::connect_with(&options).await?;
    sqlx::raw_sql(
        "do $$
         declare
             thing record;
         begin
             for thing in
                 select format('drop %s if exists public.%I cascade',
                               case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
                                              else 'table' end, c.relname) as statement
                   from pg_class c
                  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
                    and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('e', 'i', 'a'))
             loop
                 execute thing.statement;
             end loop;
             for thing in
                 select format('drop routine if exists %s cascade', p.oid::regprocedure) as statement
                   from pg_proc p
                  where p.pronamespace = 'public'::regnamespace
                    and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
             loop
                 execute thing.statement;
             end loop;
         end
         $$",
    )
    .execute(&mut connection)
    .await?;
    connection.close().await.ok();
    Ok(())
}

/// What a dump does not bring: what the first migration says of functions that later ones make, because it names the role
/// that owned the source, and what everybody may not do in the database. And fresh statistics.
pub async fn finish(owner_url: &str) -> Result<(), StoreError> {
    let mut connection = PgConnection::connect_with(&parse(owner_url)?).await?;
    sqlx::raw_sql("alter default privileges revoke execute on functions from public").execute(&mut connection).await?;
    super::roles::restrict_everybody(&mut connection).await?;
    sqlx::raw_sql("set client_min_messages = error; analyze").execute(&mut connection).await?;
    connection.close().await.ok();
    Ok(())
}

/// The address without its password, which may be shown to other users of the machine (a command line is), and the
/// password.
pub fn without_password(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.into(), None) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return (url.into(), None) };
    let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    (format!("{scheme}://{name}@{host}{path}"), password.map(decode))
}

/// Whether two addresses lead to one database.
pub fn same_database(a: &str, b: &str) -> bool {
    let place = |url: &str| {
        let options = parse(url).ok()?;
        Some((probe::place(url).ok()?, options.get_database().unwrap_or(options.get_username()).to_owned()))
    };
    matches!((place(a), place(b)), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_taken_out_of_an_address_and_decoded() {
        let split = |url| without_password(url);
        let bare = "postgres://backup@db:5432/cnx?sslmode=require".to_owned();
        assert_eq!(split("postgres://backup:p%40ss:w@db:5432/cnx?sslmode=require"), (bare, Some("p@ss:w".into())));
        assert_eq!(split("postgres://db/cnx"), ("postgres://db/cnx".into(), None));
        assert_eq!(split("postgres://a@db/cnx@2"), ("postgres://a@db/cnx@2".into(), None));
        assert!(same_database("postgres://a:1@db/cnx", "postgres://b:2@db:5432/cnx"));
        assert!(!same_database("postgres://a:1@db/cnx", "postgres://b:2@db:5433/cnx"));
    }
}
