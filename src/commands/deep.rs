//! `contextnexus doctor --deep`: reads every row and snapshot again. What is stored and never read decays unseen; a document notices
//! only what it loads.

use super::chain;
use super::doctor::Report;
use crate::console::progress;
use crate::embedded::Urls;
use crate::postgres::{Database, DatabaseSettings, begin, operation_log, tenants};
use contextnexus_actors::ids::{DocumentKey, TenantId};
use std::error::Error;
use std::time::{Duration, Instant};

/// What its lines are about.
pub(super) const PART: &str = "documents";

/// Tenants and documents that are listed at once.
const PAGE: i64 = 100;
/// A page of rows is a few MiB, which a slow disk gives in this time.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Lines about one document. What is wrong with the first row is mostly wrong with the next.
const FAULTS_SHOWN_MAX: usize = 5;

/// What was read so far.
#[derive(Default)]
struct Read {
    tenants: u64,
    documents: u64,
    rows: u64,
    snapshots: u64,
    damaged: u64,
}

impl std::fmt::Display for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tenants, documents, rows, snapshots, .. } = self;
        write!(f, "{documents} documents of {tenants} tenants, with {rows} rows and {snapshots} snapshots")
    }
}

/// Reads all tenants' documents, or those of one.
pub(super) async fn run(report: &mut Report, urls: &Urls, only: Option<&str>) {
    let mut read = Read::default();
    match read_all(report, urls, only, &mut read).await {
        Ok(()) if read.damaged == 0 => report.ok(PART, format_args!("{read}: all of it reads back and agrees")),
        Ok(()) => report.fail(
            PART,
            format_args!(
                "{} of {read} are damaged; look at the disk. Restore a backup, or open a document again as it is, which gives up what \
                 does not read back (POST /v1/documents/ID/reopen)",
                read.damaged
            ),
        ),
        Err(error) => report.fail(PART, format_args!("cannot be read to the end: {}", chain(error.as_ref()))),
    }
}

async fn read_all(report: &mut Report, urls: &Urls, only: Option<&str>, read: &mut Read) -> Result<(), Box<dyn Error>> {
    let settings =
        DatabaseSettings { connections_max: 1, statement_timeout: STATEMENT_TIMEOUT, ..DatabaseSettings::default() };
    let database = Database::new(&urls.application.0, &settings)?;
    if let Some(slug) = only {
        let tenant = tenants::find_by_slug(&database, slug).await?.ok_or("there is no such tenant")?;
        return read_tenant(report, &database, tenant.id, read).await;
    }
    let mut after = None;
    loop {
        let page = tenants::ids(&database, after, PAGE).await?;
        for tenant in &page {
            read_tenant(report, &database, *tenant, read).await?;
        }
        after = page.last().copied();
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn read_tenant(
    report: &mut Report,
    database: &Database,
    tenant: TenantId,
    read: &mut Read,
) -> Result<(), Box<dyn Error>> {
    let slug = tenants::get(&mut begin(database, tenant).await?).await?.slug;
    read.tenants += 1;
    let mut told = Instant::now();
    let mut after = None;
    loop {
        let page = operation_log::documents(database, tenant, after, PAGE).await?;
        for document in &page {
            let audit = operation_log::audit(database, DocumentKey { tenant, document: *document }).await?;
            read.documents += 1;
            read.rows += audit.rows;
            read.snapshots += audit.snapshots;
            read.damaged += u64::from(!audit.faults.is_empty());
            for fault in audit.faults.iter().take(FAULTS_SHOWN_MAX) {
                report.fail(PART, format_args!("tenant {slug}, document {document}: {fault}"));
            }
            if told.elapsed() > PROGRESS_INTERVAL {
                told = Instant::now();
                progress(format_args!("Read {read} ..."));
            }
        }
        after = page.last().copied();
        if after.is_none() {
            return Ok(());
        }
    }
}
