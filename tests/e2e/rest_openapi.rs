//! The description of the interface, the page that shows it, and what stands around every answer.

use crate::support::postgres::TestDatabase;
use crate::support::rest::TestApp;
use actix_web::http::Method;
use contextnexus::origins::Origins;
use contextnexus::rest::RestSettings;
use serde_json::Value;
use std::collections::BTreeSet;

fn app(db: &TestDatabase) -> TestApp {
    TestApp::start(db.database())
}

#[actix_web::test]
async fn the_description_is_whole() {
    let db = TestDatabase::create().await;
    let api = app(&db).get("/openapi.json").send().await.expect(200).json();
    assert_eq!(api["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what} says nothing");
            assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{what}: {}", operation["tags"]);
            assert!(ids.insert(operation["operationId"].to_string()), "{what}: the operationId is another's, too");
            let is_open = path == "/v1/auth/login";
            assert_eq!(operation.get("security").is_none(), is_open, "{what}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{what} never succeeds");
            assert!(responses.contains_key("401"), "{what}");
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    parameters.iter().any(|p| p["name"] == name && p["in"] == "path" && p["required"] == true),
                    "{what} does not describe {name}"
                );
            }
        }
    }
    each_reference(&api, &mut |reference| {
        let found = api.pointer(reference.strip_prefix('#').unwrap());
        assert!(found.is_some(), "{reference} leads nowhere");
    });
}

fn each_reference(value: &Value, tell: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(reference) if key == "$ref" => tell(reference),
                    value => each_reference(value, tell),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_reference(item, tell)),
        _ => {}
    }
}

#[actix_web::test]
async fn the_reader_page_loads_nothing_from_elsewhere() {
    let db = TestDatabase::create().await;
    let app = app(&db);
    let page = app.get("/docs").send().await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for path in ["/docs", "/docs/page.js", "/docs/page.css"] {
        let text = app.get(path).send().await.expect(200).text();
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("\"//"), "{path}");
        assert!(!text.contains("innerHTML"), "{path}");
    }
}

#[actix_web::test]
async fn every_answer_binds_the_browser_and_names_its_request() {
    let db = TestDatabase::create().await;
    let app = app(&db);
    for path in ["/docs", "/openapi.json", "/v1/me", "/nowhere"] {
        let answer = app.get(path).header("x-request-id", "mine-1").send().await;
        for (name, value) in [
            ("x-request-id", "mine-1"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
    }
    let fresh = app.get("/v1/me").header("x-request-id", "not a plain one").send().await;
    assert!(uuid::Uuid::try_parse(fresh.header("x-request-id")).is_ok());
    assert_eq!(app.get("/nowhere").send().await.expect(404).code(), "not_found");
}

#[actix_web::test]
async fn pages_of_others_may_read_only_where_the_settings_name_them() {
    let db = TestDatabase::create().await;
    let origins = Origins::new(&[], &["https://app.example".into()], "", false);
    let app = TestApp::with(db.database(), RestSettings::default(), origins);
    let ask = |method: Method, origin: &str| {
        app.call(method, "/v1/documents").header("origin", origin).header("access-control-request-method", "POST")
    };
    let allowed = ask(Method::OPTIONS, "https://app.example").send().await.expect(204);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(allowed.header("access-control-allow-credentials"), "");
    let refused = ask(Method::OPTIONS, "https://evil.example").send().await.expect(403);
    assert_eq!(refused.header("access-control-allow-origin"), "");
    let answer = ask(Method::GET, "https://app.example").send().await.expect(401);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(ask(Method::GET, "https://evil.example").send().await.header("access-control-allow-origin"), "");
}
