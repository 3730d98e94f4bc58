//! The pages: files that were built beforehand and lie in the binary.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use crate::app::App;
use crate::error::{ApiError, Dialect, Kind};
use crate::http::{InPath, refusal};

/// A file of a page.
struct File {
    name: &'static str,
    /// The page that it is of; none if it is of all.
    page: Option<&'static str>,
    content_type: &'static str,
    content_encoding: Option<&'static str>,
    /// Whether its name changes with its contents.
    immutable: bool,
    bytes: &'static [u8],
}

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// A page that the binary carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// A conversation with the model.
    Chat,
    /// A run that is watched.
    Dashboard,
}

impl Page {
    fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Dashboard => "dashboard",
        }
    }

    /// The file that is served for the address of the page.
    pub(crate) fn index(self) -> &'static str {
        match self {
            Self::Chat => "index.html",
            Self::Dashboard => "dashboard.html",
        }
    }
}

/// A page runs its own scripts and asks its own server, and nothing else; text never becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// `GET /`
pub(crate) async fn index(State(app): State<Arc<App>>) -> Response {
    if app.config.page {
        return serve(Page::Chat, Page::Chat.index());
    }
    let mut response = Response::new(Body::from("minke\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// `GET` of the folder's name without a slash: addresses in the page are relative to the folder.
pub(crate) async fn redirect(State(app): State<Arc<App>>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(place) = HeaderValue::from_str(&format!("{}/", app.config.base_path)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// `GET` of a file of the page.
pub(crate) async fn file(State(app): State<Arc<App>>, InPath(name): InPath) -> Response {
    if app.config.page {
        return serve(Page::Chat, &name);
    }
    missing(&name)
}

fn missing(name: &str) -> Response {
    refusal(&ApiError::new(Kind::NotFound, format!("there is nothing at /{name}")), Dialect::OpenAi)
}

/// A file of a page.
pub(crate) fn serve(page: Page, name: &str) -> Response {
    let of_page = |file: &&File| file.name == name && file.page.is_none_or(|of| of == page.name());
    let Some(file) = FILES.iter().find(of_page) else { return missing(name) };
    let mut response = Response::new(Body::from(file.bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    if let Some(encoding) = file.content_encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    let age = if file.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(age));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_small_and_whole() {
        for (page, most) in [(Page::Chat, 300_000), (Page::Dashboard, 40_000)] {
            let files = || FILES.iter().filter(|file| file.page.is_none_or(|of| of == page.name()));
            let bytes: usize = files().map(|file| file.bytes.len()).sum();
            assert!(bytes <= most, "{page:?}: {bytes} bytes");
            assert!(files().any(|file| file.name == page.index()), "{page:?}");
            assert!(files().all(|file| file.content_encoding.is_none_or(|encoding| encoding == "gzip")));
        }
        assert_eq!(serve(Page::Chat, Page::Dashboard.index()).status(), StatusCode::NOT_FOUND);
        assert_eq!(serve(Page::Dashboard, Page::Dashboard.index()).status(), StatusCode::OK);
    }
}
