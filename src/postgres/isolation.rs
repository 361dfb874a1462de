//! Whether tenants are still kept apart as the migrations did it. People with rights on the database can undo it with one
//! statement, and nothing else of the server would notice.

use super::{Database, StoreError};
use std::collections::BTreeMap;
use std::fmt;

/// Something that lets one tenant see another's rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weakness {
    /// What was found.
    pub what: String,
    /// The statements that put it right, for the owner of the tables.
    pub remedy: String,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (as the owner: {})", self.what, self.remedy)
    }
}

/// What `isolate_tenant` writes into each policy, as PostgreSQL shows it, without spaces and parentheses: nothing in it
/// binds differently without them.
const RULE: &str = "=NULLIFcurrent_setting'app.current_tenant_id'::text,true,''::text::uuid";

/// A table that holds what is a tenant's.
struct Table {
    name: String,
    /// The column that says whose a row is.
    column: String,
    is_enabled: bool,
    is_forced: bool,
    policies: Vec<Policy>,
}

struct Policy {
    name: String,
    is_permissive: bool,
    /// For all commands and all roles.
    is_for_all: bool,
    using: String,
    check: String,
}

/// Everything that weakens the isolation of tenants for the role that serves. Tables and views that it has no rights in do
/// not count: they are somebody else's.
#[tracing::instrument(name = "pg.isolation.weaknesses", skip_all, err(level = "debug"))]
pub async fn weaknesses(database: &Database) -> Result<Vec<Weakness>, StoreError> {
    let mut found: Vec<_> = tables(database).await?.iter().flat_map(Table::weaknesses).collect();
    let views = sqlx::query_scalar!(
        r#"select c.relname::text as "name!" from pg_class c
            where c.relnamespace = 'public'::regnamespace and c.relkind in ('v', 'm')
              and has_table_privilege(c.oid, 'select')
              and not coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on',
                                                     'security_invoker=yes', 'security_invoker=1'], false)
              and exists (select from pg_rewrite r
                            join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                                            and d.refclassid = 'pg_class'::regclass and d.refobjid <> c.oid
                            join pg_attribute a on a.attrelid = d.refobjid and a.attname = 'tenant_id'
                           where r.ev_class = c.oid)
            order by 1"#
    )
    .fetch_all(&database.pool)
    .await?;
    found.extend(views.into_iter().map(|view| Weakness {
        what: format!("the view {view} reads with the rights of its owner"),
        remedy: format!("alter view {view} set (security_invoker = true)"),
    }));
    Ok(found)
}

async fn tables(database: &Database) -> Result<Vec<Table>, StoreError> {
    let rows = sqlx::query!(
        r#"select c.relname::text as "table!", a.attname::text as "column!",
                  c.relrowsecurity as "is_enabled!", c.relforcerowsecurity as "is_forced!",
                  p.polname::text as "policy?", p.polpermissive as "is_permissive?",
                  p.polcmd = '*' and p.polroles = '{0}' as "is_for_all?",
                  pg_get_expr(p.polqual, p.polrelid) as "using?", pg_get_expr(p.polwithcheck, p.polrelid) as "check?"
             from pg_class c
             join pg_attribute a on a.attrelid = c.oid and not a.attisdropped
                                and a.attname = case c.relname when 'tenants' then 'id' else 'tenant_id' end
             left join pg_policy p on p.polrelid = c.oid
            where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
              and (has_any_column_privilege(c.oid, 'select, insert, update') or has_table_privilege(c.oid, 'delete'))
            order by 1, p.polname"#
    )
    .fetch_all(&database.pool)
    .await?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for row in rows {
        let table = tables.entry(row.table.clone()).or_insert(Table {
            name: row.table,
            column: row.column,
            is_enabled: row.is_enabled,
            is_forced: row.is_forced,
            policies: Vec::new(),
        });
        if let Some(name) = row.policy {
            table.policies.push(Policy {
                name,
                is_permissive: row.is_permissive.unwrap_or(true),
                is_for_all: row.is_for_all.unwrap_or(false),
                using: row.using.unwrap_or_default(),
                check: row.check.unwrap_or_default(),
            });
        }
    }
    Ok(tables.into_values().collect())
}

impl Table {
    fn weaknesses(&self) -> Vec<Weakness> {
        let Self { name, column, .. } = self;
        let own = format!("tenant_isolation_{name}");
        let make = match column.as_str() {
            "tenant_id" => format!("select isolate_tenant('{name}')"),
            column => format!("select isolate_tenant('{name}', '{column}')"),
        };
        let mut found = Vec::new();
        let mut weak = |what: String, remedy: String| found.push(Weakness { what, remedy });
        if !self.is_enabled {
            weak(
                format!("row-level security of {name} is disabled"),
                format!("alter table {name} enable row level security"),
            );
        }
        if !self.is_forced {
            weak(
                format!("row-level security of {name} is not forced"),
                format!("alter table {name} force row level security"),
            );
        }
        if !self.policies.iter().any(|policy| policy.name == own) {
            weak(format!("the policy {own} is missing"), make.clone());
        }
        for policy in &self.policies {
            let other = &policy.name;
            if other == &own && !policy.is_as_made(column) {
                weak(
                    format!("the policy {own} is not the one that the migrations made"),
                    format!("drop policy {own} on {name}; {make}"),
                );
            } else if other != &own && policy.is_permissive {
                weak(
                    format!("the policy {other} of {name} lets rows pass that {own} does not"),
                    format!("drop policy \"{other}\" on {name}"),
                );
            }
        }
        found
    }
}

impl Policy {
    fn is_as_made(&self, column: &str) -> bool {
        let plain = |expression: &str| -> String {
            expression.chars().filter(|c| !c.is_whitespace() && !matches!(c, '(' | ')')).collect()
        };
        let expected = format!("{column}{RULE}");
        self.is_permissive && self.is_for_all && plain(&self.using) == expected && plain(&self.check) == expected
    }
}
