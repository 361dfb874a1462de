//! Reading a document: as a Yjs update, as JSON, as text.

use super::caller::Authenticated;
use super::versions::is_known;
use super::{ApiError, Problem, Rest};
use crate::export::{ExportError, Exported};
use actix_web::http::header::{self, Header as _};
use actix_web::{HttpRequest, HttpResponse, get, web};
use contextnexus_actors::ids::{DocumentId, DocumentKey, Position};
use contextnexus_actors::ports::RoomName;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

/// A Yjs update, v1.
pub(super) const UPDATE_TYPE: &str = "application/octet-stream";

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(read);
}

/// How to show a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Update,
    Json,
    Text,
}

/// The document's committed content.
///
/// `Accept: application/octet-stream` (or anything) gives one Yjs update (v1) that builds the whole document. `application/json` gives
/// every shared type by its root name: `{"text": {"kind": "text", "text": "…", "delta": […]}, …}` with the kinds `text`, `map`,
/// `array` and `xml`. `text/plain` gives the plain text of all roots, each block of XML on a line of its own.
/// The kinds are found out from the content itself, since Yjs does not store them.
#[utoipa::path(
    operation_id = "read_content", tag = "Documents", security(("token" = [])),
    params(("id" = Uuid, Path), ("If-None-Match" = Option<String>, Header, description = "`ETag`s that were seen, as RFC 9110 has it (a list, `W/`, `*`): 304 if nothing changed.")),
    responses(
        (
            status = 200,
            content(
                (Vec<u8> = "application/octet-stream"),
                (std::collections::BTreeMap<String, Exported> = "application/json"),
                (String = "text/plain")
            ),
            headers(("ETag" = String), ("ContextNexus-Seq" = u64, description = "The sequence number of the last update in it."))
        ),
        (status = 304, description = "Nothing changed."),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json", description = "`not_acceptable`"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`too_large_to_show` as JSON or text"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`unavailable`")
    )
)]
#[get("/v1/documents/{id}/content")]
async fn read(
    request: HttpRequest,
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: web::Path<Uuid>,
) -> Result<HttpResponse, ApiError> {
    let form = wanted(&request)?;
    let caller = caller.reaches(DocumentId(*id))?;
    let grant = rest.authority.open(caller, &RoomName::Id(DocumentId(*id))).await?;
    let key = DocumentKey { tenant: caller.tenant, document: grant.document };
    let (position, state) = rest.documents.state(key).await?;
    let etag = etag(position, form);
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::ETAG, etag.as_str()))
        .insert_header((header::VARY, "accept"))
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .insert_header(("contextnexus-seq", position.seq));
    if is_known(&request, &etag) {
        response.status(actix_web::http::StatusCode::NOT_MODIFIED);
        return Ok(response.finish());
    }
    Ok(match form {
        // Served as a file: whatever is in it, a browser must not take it for a page.
        Form::Update => response
            .content_type(UPDATE_TYPE)
            .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"document.yjs\""))
            .body(state),
        Form::Json => response.content_type("application/json").body(rest.exporter.json(state).await?),
        Form::Text => response.content_type("text/plain; charset=utf-8").body(rest.exporter.text(state).await?),
    })
}

/// A position names exactly one content.
fn etag(position: Position, form: Form) -> String {
    let form = match form {
        Form::Update => "y",
        Form::Json => "j",
        Form::Text => "t",
    };
    format!("\"{}-{}-{form}\"", position.seq, position.tip.0.simple())
}

/// The first form that the client accepts, in its own order.
fn wanted(request: &HttpRequest) -> Result<Form, ApiError> {
    if !request.headers().contains_key(header::ACCEPT) {
        return Ok(Form::Update);
    }
    let refused = || ApiError::NotAcceptable("application/octet-stream, application/json or text/plain");
    let accept = header::Accept::parse(request).map_err(|_| refused())?;
    accept
        .ranked()
        .iter()
        .find_map(|media| match (media.type_().as_str(), media.subtype().as_str()) {
            ("application", "octet-stream" | "*") | ("*", "*") => Some(Form::Update),
            ("application", "json") => Some(Form::Json),
            ("text", "plain" | "*") => Some(Form::Text),
            _ => None,
        })
        .ok_or_else(refused)
}

impl From<ExportError> for ApiError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::TooLarge | ExportError::TooSlow => Self::TooLargeToShow,
            ExportError::Busy => Self::Unavailable { retry_after_s: 1 },
            ExportError::Unreadable(_) => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn the_client_chooses_the_form() {
        let form = |accept: &str| wanted(&TestRequest::get().insert_header(("accept", accept)).to_http_request());
        assert_eq!(form("application/json").unwrap(), Form::Json);
        assert_eq!(form("text/plain; charset=utf-8").unwrap(), Form::Text);
        assert_eq!(form("*/*").unwrap(), Form::Update);
        assert_eq!(form("application/json;q=0.1, text/plain").unwrap(), Form::Text);
        assert_eq!(form("text/html, application/xhtml+xml, */*;q=0.8").unwrap(), Form::Update);
        assert!(form("image/png").is_err());
        assert_eq!(wanted(&TestRequest::get().to_http_request()).unwrap(), Form::Update);
    }
}
