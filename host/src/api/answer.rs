//! The shape of answers: JSON, errors as `{"error": {"code", "message"}}`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    api::QueryFailure,
    status::{ErrorBody, ErrorDetail},
};

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl From<QueryFailure> for Refusal {
    fn from(failure: QueryFailure) -> Self {
        match failure {
            QueryFailure::NotFound(message) => Self::not_found(message),
            QueryFailure::BadRequest(message) => Self::bad_request(message),
            QueryFailure::Forbidden(message) => Self::forbidden(message),
            QueryFailure::Failed(message) => Self::failed(message),
            QueryFailure::NoSuchPlugin(message) => {
                Self::new(StatusCode::NOT_FOUND, "no_such_plugin", message)
            }
            QueryFailure::Busy(message) => Self::busy(message),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let detail = ErrorDetail {
            code: self.code.to_owned(),
            message: self.message,
        };
        let mut response = json(self.status, &ErrorBody { error: detail });
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A value as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => json_text(status, text),
        Err(why) => Refusal::failed(format!("the answer is no JSON: {why}")).into_response(),
    }
}

/// A text that is JSON already.
pub(super) fn json_text(status: StatusCode, text: String) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, text).into_response()
}
