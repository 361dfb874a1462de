//! Every error that HTTP gives, and the only place that knows how they look: problem+json (RFC 9457) with a stable `code`.
//!
//! Bodies hold no SQL, no paths, no versions of software. What is missing and what is another tenant's answer alike.

use crate::postgres::StoreError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contextnexus_actors::causes::Cause;
use contextnexus_actors::ports::{AccessDenied, LogError, ReadRefused, WriteRefused};
use contextnexus_actors::report;
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What a handler answers instead of a result. One variant per decision that a client can take.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No token, or not a valid one.
    #[error("a valid token is needed")]
    Unauthenticated,
    /// Wrong tenant, e-mail or password; which of them is not said.
    #[error("the e-mail or the password is wrong")]
    BadCredentials,
    /// The caller is known and may not.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A viewer writes.
    #[error("you may read this document, not write it")]
    ReadOnly,
    /// A browser's request from a page of somebody else's.
    #[error("requests from this origin are not allowed")]
    OriginNotAllowed,
    /// Missing, or another tenant's, or one that the caller is no member of: said alike.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The path is served, by other methods.
    #[error("this path does not take this method; it takes {allow}")]
    MethodNotAllowed {
        /// Which, as `Allow` lists them.
        allow: String,
    },
    /// A tombstone stands there.
    #[error("this document was deleted")]
    DocumentDeleted,
    /// The request cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// The body reads well, a value in it does not fit.
    #[error("{field}: {reason}")]
    InvalidField {
        /// Which.
        field: &'static str,
        /// Why, for the person who wrote it.
        reason: String,
    },
    /// The update breaks a rule of the format.
    #[error("{0}")]
    MalformedUpdate(String),
    /// The update is of the v2 format.
    #[error("{}", WriteRefused::FormatV2)]
    UpdateFormatV2,
    /// The name or slug is taken, by something that lives, an alias or a tombstone.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// It would leave a project without an administrator.
    #[error("a project keeps at least one administrator")]
    LastAdmin,
    /// The update builds on what the document lacks.
    #[error(
        "the update builds on changes that the document does not have; send what follows the state vector given here"
    )]
    UpdateGap {
        /// The document's, v1.
        state_vector: bytes::Bytes,
    },
    /// The update contradicts the document.
    #[error(
        "the update contradicts what the document holds under the same client id; it is kept in quarantine: write it again under a fresh client id"
    )]
    Fork,
    /// A client id of the update belongs to somebody who is connected.
    #[error("a client id of the update is in use by somebody else; try again when they have left")]
    ClientIdInUse,
    /// `If-Match` names another version.
    #[error("the resource is at another version")]
    VersionConflict {
        /// The version to read and try again with.
        current: i64,
    },
    /// A change that needs `If-Match` came without.
    #[error("this change needs If-Match with the ETag of the version that you have seen")]
    PreconditionRequired,
    /// Too large.
    #[error("the body is too large")]
    TooLarge {
        /// The limit in bytes, where this side knows it.
        limit: Option<usize>,
    },
    /// The body is of a kind that is not understood here.
    #[error("this resource takes {0}")]
    UnsupportedMediaType(&'static str),
    /// No form that the client accepts.
    #[error("this resource is given as {0}")]
    NotAcceptable(&'static str),
    /// The idempotency key was used with another body.
    #[error("this Idempotency-Key was used with another body")]
    IdempotencyConflict,
    /// The body did not come in time.
    #[error("the request took too long to come")]
    TooSlow,
    /// Too often.
    #[error("too many requests of this kind; try again later")]
    TooManyRequests {
        /// Seconds to wait.
        retry_after_s: u64,
    },
    /// The document is at one of its limits, named in the text.
    #[error("{0}")]
    DocumentFull(&'static str),
    /// Showing the document as JSON or text took too long or too much.
    #[error("the document is too large to be shown like this; read it as a Yjs update")]
    TooLargeToShow,
    /// PostgreSQL is away, or too much waits.
    #[error("the server cannot do this right now; try again")]
    Unavailable {
        /// Seconds to wait.
        retry_after_s: u64,
    },
    /// A defect of ours; the cause is logged, not told.
    #[error("something went wrong here")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// `urn:contextnexus:problem:` and the code.
    #[schema(example = "urn:contextnexus:problem:version_conflict")]
    pub r#type: String,
    /// What kind of thing happened; the same for every occurrence of a code.
    #[schema(example = "Version conflict")]
    pub title: &'static str,
    /// The HTTP status.
    #[schema(example = 412)]
    pub status: u16,
    /// Stable; decide by this.
    #[schema(example = "version_conflict")]
    pub code: &'static str,
    /// What happened here, for people.
    pub detail: String,
    /// The field of the body or query that does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<&'static str>,
    /// `version_conflict`: the version that the resource is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub current_version: Option<i64>,
    /// `update_gap`: the document's v1 state vector in Base64. Send the difference from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub state_vector: Option<String>,
    /// `payload_too_large`: the limit in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limit_bytes: Option<usize>,
}

impl ApiError {
    /// A defect of ours.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// A value that does not fit.
    pub fn field(field: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidField { field, reason: reason.into() }
    }

    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "Authentication needed"),
            Self::BadCredentials => (StatusCode::UNAUTHORIZED, "bad_credentials", "Wrong e-mail or password"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", "Not allowed"),
            Self::ReadOnly => (StatusCode::FORBIDDEN, "read_only", "Read-only"),
            Self::OriginNotAllowed => (StatusCode::FORBIDDEN, "origin_not_allowed", "Origin not allowed"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            Self::DocumentDeleted => (StatusCode::GONE, "document_deleted", "Document deleted"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed_request", "Malformed request"),
            Self::InvalidField { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "Invalid value"),
            Self::MalformedUpdate(_) => (StatusCode::BAD_REQUEST, "malformed_update", "Malformed update"),
            Self::UpdateFormatV2 => (StatusCode::BAD_REQUEST, "update_format_v2", "Update in format v2"),
            Self::Taken(_) => (StatusCode::CONFLICT, "name_taken", "Name taken"),
            Self::LastAdmin => (StatusCode::CONFLICT, "last_admin", "Last administrator"),
            Self::UpdateGap { .. } => (StatusCode::CONFLICT, "update_gap", "Update does not follow on"),
            Self::DocumentFull(_) => (StatusCode::CONFLICT, "document_full", "Document full"),
            Self::Fork => (StatusCode::CONFLICT, "update_fork", "Update contradicts the document"),
            Self::ClientIdInUse => (StatusCode::CONFLICT, "client_id_in_use", "Client id in use"),
            Self::VersionConflict { .. } => (StatusCode::PRECONDITION_FAILED, "version_conflict", "Version conflict"),
            Self::PreconditionRequired => {
                (StatusCode::PRECONDITION_REQUIRED, "precondition_required", "If-Match needed")
            }
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "Body too large"),
            Self::UnsupportedMediaType(_) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
            }
            Self::NotAcceptable(_) => (StatusCode::NOT_ACCEPTABLE, "not_acceptable", "Not acceptable"),
            Self::IdempotencyConflict => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_conflict", "Idempotency key used")
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "request_timeout", "Request timeout"),
            Self::TooManyRequests { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests"),
            Self::TooLargeToShow => (StatusCode::UNPROCESSABLE_ENTITY, "too_large_to_show", "Too large to show"),
            Self::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// The body.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (status, code, title) = self.kind();
        let mut problem = Problem {
            r#type: format!("urn:contextnexus:problem:{code}"),
            title,
            status: status.as_u16(),
            code,
            detail: self.to_string(),
            field: None,
            current_version: None,
            state_vector: None,
            limit_bytes: None,
        };
        match self {
            Self::InvalidField { field, .. } => problem.field = Some(field),
            Self::VersionConflict { current } => problem.current_version = Some(*current),
            Self::UpdateGap { state_vector } => problem.state_vector = Some(STANDARD.encode(state_vector)),
            Self::TooLarge { limit } => problem.limit_bytes = *limit,
            _ => {}
        }
        problem
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.kind().0
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Internal(cause) = self {
            report!(Cause::Defect, error = &**cause as &(dyn std::error::Error + 'static), "a request failed: {cause}");
        }
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        match self {
            Self::Unauthenticated | Self::BadCredentials => {
                response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
            Self::MethodNotAllowed { allow } => {
                response.insert_header((header::ALLOW, allow.as_str()));
            }
            Self::TooManyRequests { retry_after_s } | Self::Unavailable { retry_after_s } => {
                response.insert_header((header::RETRY_AFTER, *retry_after_s));
            }
            Self::TooSlow => {
                response.force_close(); // the rest of the body is not waited for
            }
            Self::VersionConflict { current } => {
                response.insert_header((header::ETAG, super::versions::etag(*current)));
            }
            _ => {}
        }
        let body = serde_json::to_string(&self.problem()).unwrap_or_default(); // strings and numbers: cannot fail
        response.body(body)
    }
}

impl From<AccessDenied> for ApiError {
    fn from(denied: AccessDenied) -> Self {
        match denied {
            AccessDenied::BadToken => Self::Unauthenticated,
            AccessDenied::NoSuchDocument => Self::NotFound("document"),
            AccessDenied::MayNotCreate => Self::Forbidden("you may not create documents here"),
            AccessDenied::Deleted => Self::DocumentDeleted,
            AccessDenied::NoSuchProject => Self::NotFound("project"),
            AccessDenied::BadName(why) => Self::field("name", why.text()),
            AccessDenied::Full | AccessDenied::Unavailable => Self::Unavailable { retry_after_s: 1 },
        }
    }
}

impl From<WriteRefused> for ApiError {
    fn from(refused: WriteRefused) -> Self {
        match refused {
            WriteRefused::Malformed(reason) => Self::MalformedUpdate(reason),
            WriteRefused::FormatV2 => Self::UpdateFormatV2,
            WriteRefused::Gap { state_vector } => Self::UpdateGap { state_vector },
            WriteRefused::ReadOnly => Self::ReadOnly,
            WriteRefused::TooLarge => Self::TooLarge { limit: None },
            WriteRefused::Full(limit) => Self::DocumentFull(limit),
            WriteRefused::Fork => Self::Fork,
            WriteRefused::ClientIdInUse => Self::ClientIdInUse,
            WriteRefused::IdempotencyConflict => Self::IdempotencyConflict,
            WriteRefused::Deleted => Self::DocumentDeleted,
            WriteRefused::NoSuchDocument => Self::NotFound("document"),
            WriteRefused::Unavailable { retry_after_s } => Self::Unavailable { retry_after_s },
        }
    }
}

impl From<ReadRefused> for ApiError {
    fn from(refused: ReadRefused) -> Self {
        match refused {
            ReadRefused::NoSuchDocument => Self::NotFound("document"),
            ReadRefused::Deleted => Self::DocumentDeleted,
            ReadRefused::Unavailable { retry_after_s } => Self::Unavailable { retry_after_s },
        }
    }
}

impl From<LogError> for ApiError {
    /// Of a log that is mended: whatever it is, it may be tried again.
    fn from(error: LogError) -> Self {
        match error {
            LogError::NoSuchDocument => Self::NotFound("document"),
            LogError::Unavailable(_) | LogError::Diverged | LogError::Damaged(_) => {
                Self::Unavailable { retry_after_s: 1 }
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { entity } => Self::NotFound(entity),
            StoreError::VersionConflict { actual, .. } => Self::VersionConflict { current: actual },
            StoreError::Taken { constraint } => Self::Taken(match constraint.as_str() {
                "projects_slug_key" => "this slug",
                "users_email_key" => "this e-mail address",
                "project_memberships_pkey" => "this membership",
                _ => "this name",
            }),
            StoreError::RefersToNothing { .. } => Self::NotFound("user, project or document"),
            StoreError::Invalid { .. } => Self::Malformed("a value breaks a rule of this resource".into()),
            StoreError::Unavailable(cause) => {
                report!(
                    Cause::Outage,
                    error = &cause as &(dyn std::error::Error + 'static),
                    "PostgreSQL is unavailable to a request"
                );
                Self::Unavailable { retry_after_s: 1 }
            }
            error @ (StoreError::BadAddress | StoreError::Database(_)) => Self::internal(error),
        }
    }
}

impl From<crate::passwords::PasswordError> for ApiError {
    fn from(error: crate::passwords::PasswordError) -> Self {
        match error {
            crate::passwords::PasswordError::Busy => Self::Unavailable { retry_after_s: 1 },
            crate::passwords::PasswordError::Unhashable => Self::internal(error),
        }
    }
}

impl From<crate::tokens::NoRandomness> for ApiError {
    fn from(error: crate::tokens::NoRandomness) -> Self {
        Self::internal(error)
    }
}
