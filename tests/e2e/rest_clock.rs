//! A node whose clock is wrong: what it makes lasts as long as it should, by the database's clock.

use crate::support::postgres::TestDatabase;
use crate::support::rest::{Company, PASSWORD, TestApp};
use chrono::{DateTime, TimeDelta, Utc};
use contextnexus::origins::Origins;
use contextnexus::rest::RestSettings;
use contextnexus_actors::access::Token;
use contextnexus_actors::clock::{Clock, SystemClock};
use contextnexus_actors::ids::DocumentId;
use contextnexus_actors::ports::RoomName;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The machine's clock, and so much more.
struct Off(TimeDelta);

impl Clock for Off {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + self.0
    }
    fn instant(&self) -> Instant {
        SystemClock.instant()
    }
    fn fresh_id(&self) -> Uuid {
        SystemClock.fresh_id()
    }
}

/// Seconds from now, by the machine's clock, which is the database's too.
fn seconds_left(time: &Value) -> i64 {
    let time: DateTime<Utc> = time.as_str().unwrap().parse().unwrap();
    (time - SystemClock.now()).num_seconds()
}

#[actix_web::test]
async fn what_a_node_makes_whose_clock_is_an_hour_off_is_good_for_as_long_as_it_says() {
    for off in [TimeDelta::hours(1), -TimeDelta::hours(1)] {
        let db = TestDatabase::create().await;
        let company = Company::found(&db, "acme").await;
        let origins = Origins::new(&[], &[], "", true);
        let app = TestApp::with_clock(db.database(), RestSettings::default(), origins, Arc::new(Off(off)));
        let (document, admin) = (company.document, &company.admin.token);
        // A machine may take minutes for a line of this, and never an hour.
        let is_about = |time: &Value, s: i64| (s - 900..=s).contains(&seconds_left(time));

        let ticket = app.post(&format!("/v1/documents/{document}/ticket")).token(admin);
        let ticket = ticket.json(json!({ "subject": "u", "ttl": 1800 })).send().await.expect(201).json();
        assert!(is_about(&ticket["redeem_by"], 60), "{off}: {ticket}");
        assert!(is_about(&ticket["expires_at"], 1800), "{off}: {ticket}");
        let redeemed = Token(ticket["ticket"].as_str().unwrap().to_owned());
        let caller = app.authority.authenticate(&redeemed).await.unwrap_or_else(|error| panic!("{off}: {error:?}"));
        let before = Instant::now();
        let grant = app.authority.open(&caller, &RoomName::Id(DocumentId(document))).await.unwrap();
        let lasts = grant.until.unwrap() - before;
        assert!((900..=1801).contains(&lasts.as_secs()), "{off}: {lasts:?}");

        let body = json!({ "tenant": "acme", "email": company.editor.email, "password": PASSWORD });
        let login = app.post("/v1/auth/login").json(body).send().await.expect(200).json();
        assert!(is_about(&login["expires_at"], 30 * 86_400), "{off}: {login}");

        let body = json!({ "name": "soon", "ttl_s": 1200 });
        let api = app.post("/v1/tokens").token(&company.boss.token).json(body).send().await.expect(201).json();
        assert!(is_about(&api["expires_at"], 1200), "{off}: {api}");
        app.get("/v1/me").token(api["token"].as_str().unwrap()).send().await.expect(200);

        let body = json!({ "validForSeconds": 1200 });
        let path = format!("/doc/{document}/auth");
        let made = app.post(&path).token(&company.editor.token).json(body).send().await.expect(200).json();
        let token = Token(made["token"].as_str().unwrap().to_owned());
        let caller = app.authority.authenticate(&token).await.unwrap_or_else(|error| panic!("{off}: {error:?}"));
        let left = caller.expires_at - SystemClock.now();
        assert!(left <= TimeDelta::seconds(1200) && left > TimeDelta::seconds(300), "{off}: {left}");
    }
}

/// Of a session's end that the database gave, an own ticket takes the same.
#[actix_web::test]
async fn a_ticket_of_ones_own_ends_with_ones_session() {
    let db = TestDatabase::create().await;
    let company = Company::found(&db, "acme").await;
    let app = TestApp::start(db.database());
    let me = app.get("/v1/me").token(&company.editor.token).send().await.expect(200).json();
    let path = format!("/v1/documents/{}/ticket", company.document);
    let ticket = app.post(&path).token(&company.editor.token).send().await.expect(201).json();
    assert_eq!(ticket["expires_at"], me["session"]["expires_at"]);
    assert!(Duration::from_secs(60) >= Duration::from_secs(seconds_left(&ticket["redeem_by"]).unsigned_abs()));
}
