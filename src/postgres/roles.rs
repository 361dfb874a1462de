//! The roles of the database: one that owns and migrates, one that serves; and what a look at the server finds wanting.

use super::{Database, StoreError, parse};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The group that migrations grant to; the role of `DATABASE_URL` is a member.
pub const APPLICATION_ROLE: &str = "contextnexus_application";

/// Names the lock of those who make roles and the database.
const PREPARING: i64 = 0x636e_785f_726f_6c65;

/// A role that signs in.
#[derive(Clone)]
pub struct Login<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its password.
    pub password: &'a str,
}

/// Makes the two roles and the database on a cluster of one's own (embedded mode, tests). Repeating it sets the passwords anew.
///
/// `superuser_url` leads to the `postgres` database.
pub async fn prepare(
    superuser_url: &str,
    owner: Login<'_>,
    application: Login<'_>,
    database: &str,
) -> Result<(), StoreError> {
    let options = parse(superuser_url)?.options([("lock_timeout", "60000")]);
    let mut connection = PgConnection::connect_with(&options).await?;
    // One at a time: what a start that was killed had asked for, PostgreSQL may still be doing.
    sqlx::query("select pg_advisory_lock($1)").bind(PREPARING).execute(&mut connection).await?;
    let group = Login { name: APPLICATION_ROLE, password: "" };
    for (login, can_login) in [(&group, false), (&owner, true), (&application, true)] {
        let exists: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
            .bind(login.name)
            .fetch_one(&mut connection)
            .await?;
        // PostgreSQL quotes; passwords travel as a parameter of this one and are in no log.
        let template = match (exists, can_login) {
            (true, false) => continue,
            (false, false) => "create role %1$I nologin",
            (false, true) => "create role %1$I login password %2$L",
            (true, true) => "alter role %1$I login password %2$L",
        };
        let statement: String = sqlx::query_scalar("select format($1, $2, $3)")
            .bind(template)
            .bind(login.name)
            .bind(login.password)
            .fetch_one(&mut connection)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    }
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(database)
        .fetch_one(&mut connection)
        .await?;
    let mut statements = vec![("grant %1$I to %2$I", APPLICATION_ROLE, application.name)];
    if !exists {
        statements.push(("create database %1$I owner %2$I", database, owner.name));
    }
    for (template, first, second) in statements {
        let statement: String = sqlx::query_scalar("select format($1, $2, $3)")
            .bind(template)
            .bind(first)
            .bind(second)
            .fetch_one(&mut connection)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Makes the role that reads everything for backups, on a cluster of one's own. Repeating it sets the password anew.
pub async fn prepare_backup(superuser_url: &str, backup: Login<'_>) -> Result<(), StoreError> {
    let mut connection = PgConnection::connect_with(&parse(superuser_url)?).await?;
    let exists: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
        .bind(backup.name)
        .fetch_one(&mut connection)
        .await?;
    let make = if exists {
        "alter role %1$I login bypassrls password %2$L"
    } else {
        "create role %1$I login bypassrls password %2$L"
    };
    for template in [make, "grant pg_read_all_data to %1$I"] {
        let statement: String = sqlx::query_scalar("select format($1, $2, $3)")
            .bind(template)
            .bind(backup.name)
            .bind(backup.password)
            .fetch_one(&mut connection)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Takes from everybody what PostgreSQL gives everybody in a new database and nothing here needs: temporary tables, which
/// could stand in for those of the schema. For the owner of the database; for anybody else it does nothing. A dump does not
/// hold it, so a restored database needs it again.
pub(super) async fn restrict_everybody(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let revoke: String =
        sqlx::query_scalar("select format('revoke temporary on database %I from public', current_database())")
            .fetch_one(&mut *connection)
            .await?;
    sqlx::raw_sql(AssertSqlSafe(revoke)).execute(connection).await?;
    Ok(())
}

/// What [`inspect`] found.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// As PostgreSQL counts: 150004 is 15.4.
    pub server_version: i32,
    /// What makes tenants unsafe: each a sentence. Serving must be refused.
    pub unsafe_role: Vec<String>,
    /// What makes a commit less than durable (`fsync`, `full_page_writes`): each a sentence. Serving needs an explicit flag.
    pub weakened: Vec<String>,
    /// More than the role needs: each a sentence with its remedy. Worth a warning.
    pub excess: Vec<String>,
    /// Writes go elsewhere: a standby.
    pub read_only: bool,
}

/// Looks at the server and at the role that serves.
#[tracing::instrument(name = "pg.roles.inspect", skip_all, err(level = "debug"))]
pub async fn inspect(database: &Database) -> Result<Inspection, StoreError> {
    let facts = sqlx::query!(
        r#"select current_setting('server_version_num')::int as "server_version!",
                  current_setting('fsync') = 'on' as "fsync!",
                  current_setting('full_page_writes') = 'on' as "full_page_writes!",
                  (pg_is_in_recovery() or current_setting('transaction_read_only') = 'on') as "read_only!",
                  role.rolsuper as "superuser!", role.rolbypassrls as "bypassrls!", role.rolname::text as "name!",
                  has_schema_privilege('public', 'create') as "creates!",
                  has_database_privilege(current_database(), 'temporary') as "makes_temporary!",
                  current_database()::text as "database!",
                  (select min(r.rolname)::text from pg_roles r
                    where (r.rolsuper or r.rolbypassrls) and not role.rolsuper
                      and pg_has_role(role.oid, r.oid, 'member') and r.oid <> role.oid) as "may_become?",
                  exists (select from pg_roles g
                           where g.rolname = 'contextnexus_application'
                             and pg_has_role(role.oid, g.oid, 'usage')) as "member!",
                  exists (select from pg_class c
                           where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
                             and pg_has_role(role.oid, c.relowner, 'member')) as "owns!"
             from pg_roles role where role.rolname = current_user"#
    )
    .fetch_one(&database.pool)
    .await?;
    let name = &facts.name;
    let mut unsafe_role = Vec::new();
    if facts.superuser || facts.bypassrls {
        unsafe_role.push(format!("the role {name} is not bound by row-level security (superuser or bypassrls)"));
    } else {
        if let Some(other) = &facts.may_become {
            unsafe_role.push(format!("the role {name} may become {other}, which row-level security does not bind"));
        }
        if facts.owns {
            unsafe_role
                .push(format!("the role {name} owns tables: serve with another role than the one that migrates"));
        }
        if facts.creates {
            unsafe_role.push(format!("the role {name} may create in the schema public"));
        }
        if !facts.member {
            unsafe_role.push(format!("the role {name} is not a member of {APPLICATION_ROLE}"));
        }
    }
    let mut weakened = Vec::new();
    if !facts.fsync {
        weakened.push("fsync is off: a commit does not survive a crash of the machine".to_owned());
    }
    if !facts.full_page_writes {
        weakened.push("full_page_writes is off: a crash may tear pages".to_owned());
    }
    let mut excess = Vec::new();
    if facts.makes_temporary {
        excess.push(format!(
            "the role {name} may make temporary tables; as the owner of the database: revoke temporary on database {} from public",
            facts.database
        ));
    }
    Ok(Inspection { server_version: facts.server_version, unsafe_role, weakened, excess, read_only: facts.read_only })
}
