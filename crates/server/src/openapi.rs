//! The document that describes this server (OpenAPI 3.1). It is made from the table of routes that the router is made from, and
//! from the types that are read and written.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::handler::Handler;
use axum::http::{HeaderName, header};
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::openapi::content::Content;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AnyOf, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Ref, RefOr, Required,
    ResponseBuilder, Server,
};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::error::{AnthropicError, Dialect, Kind, OllamaError, OpenAiError};
use crate::http::IGNORED;

/// An address: what does its work, and what the document says of it.
pub(crate) struct Route {
    pub path: &'static str,
    /// Whether a key is needed, if the server has keys.
    pub keyed: bool,
    pub handlers: MethodRouter<Arc<App>>,
    operations: Vec<(HttpMethod, About)>,
}

impl Route {
    /// An address that everybody may use.
    pub(crate) fn open(path: &'static str) -> Self {
        Self { path, keyed: false, handlers: MethodRouter::new(), operations: Vec::new() }
    }

    /// An address for those who have a key.
    pub(crate) fn keyed(path: &'static str) -> Self {
        Self { keyed: true, ..Self::open(path) }
    }

    pub(crate) fn get<T: 'static>(self, handler: impl Handler<T, Arc<App>>, about: About) -> Self {
        self.method(MethodFilter::GET, HttpMethod::Get, handler, about)
    }

    pub(crate) fn post<T: 'static>(self, handler: impl Handler<T, Arc<App>>, about: About) -> Self {
        self.method(MethodFilter::POST, HttpMethod::Post, handler, about)
    }

    pub(crate) fn delete<T: 'static>(self, handler: impl Handler<T, Arc<App>>, about: About) -> Self {
        self.method(MethodFilter::DELETE, HttpMethod::Delete, handler, about)
    }

    fn method<T: 'static>(
        mut self,
        filter: MethodFilter,
        method: HttpMethod,
        handler: impl Handler<T, Arc<App>>,
        about: About,
    ) -> Self {
        self.handlers = self.handlers.merge(on(filter, handler));
        self.operations.push((method, about));
        self
    }

    /// The path as the document writes it; in it, a part has no star that tells whether it takes slashes.
    fn documented_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    fn operation(&self, method: &HttpMethod, about: &About) -> Operation {
        let dialect = Dialect::of_path(self.path);
        let (error, _) = error_schema(dialect);
        let variable = self.path.split(['{', '}']).nth(1).map(|name| name.trim_start_matches('*'));
        let mut kinds = vec![Kind::Forbidden, Kind::Internal];
        kinds.extend(about.refusals);
        kinds.extend(self.keyed.then_some(Kind::Unauthorized));
        kinds.extend((variable.is_some() || !about.parameters.is_empty()).then_some(Kind::Invalid));
        let mut operation = Operation::builder();
        if let Some(body) = &about.body {
            kinds.extend([Kind::Invalid, Kind::Timeout, Kind::TooLarge, Kind::MediaType]);
            let content = Content::new(Some(body.clone()));
            let body = RequestBodyBuilder::new().content(JSON, content).required(Some(Required::True)).build();
            operation = operation.request_body(Some(body));
        }
        for kind in kinds {
            let status = kind.status();
            let mut response = ResponseBuilder::new()
                .description(status.canonical_reason().unwrap_or_default())
                .content(JSON, Content::new(Some(error.clone())));
            if matches!(kind, Kind::Busy | Kind::Unavailable) {
                let mut seconds = Header::new(ObjectBuilder::new().schema_type(Type::Integer));
                seconds.description = Some("Seconds until it is worth another try.".into());
                response = response.header(header::RETRY_AFTER.as_str(), seconds);
            }
            operation = operation.response(status.as_str(), response);
        }
        let text = |description: &str| {
            let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
            header.description = Some(description.into());
            header
        };
        let mut answer = ResponseBuilder::new().description(about.summary);
        for (media_type, schema) in &about.answers {
            answer = answer.content(*media_type, Content::new(Some(schema.clone())));
        }
        if let Some(item) = &about.stream {
            let (media_type, schema) = stream_schema(dialect, about.done, item.clone(), error);
            answer = answer.content(media_type, Content::new(Some(schema)));
        }
        if about.body.is_some() {
            answer = answer.header(IGNORED.as_str(), text("Names of what the request says and the server ignores."));
        }
        for (name, description) in &about.headers {
            answer = answer.header(name.as_str(), text(description));
        }
        let in_path = variable.map(|name| {
            let text = ObjectBuilder::new().schema_type(Type::String);
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(text))
        });
        for parameter in in_path.map(ParameterBuilder::build).into_iter().chain(about.parameters.iter().cloned()) {
            operation = operation.parameter(parameter);
        }
        if self.keyed {
            for scheme in [BEARER, API_KEY] {
                operation = operation.security(SecurityRequirement::new(scheme, Vec::<String>::new()));
            }
        }
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let id = std::iter::once(method_name(method)).chain(words).collect::<Vec<_>>().join("_");
        let operation = operation.summary(Some(about.summary)).operation_id(Some(id)).tag(self.tag(dialect));
        operation.response("200", answer).build()
    }

    /// Whose API it is.
    fn tag(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Anthropic => "Anthropic",
            Dialect::Ollama => "Ollama",
            Dialect::OpenAi if self.path.starts_with("/v1/") => "OpenAI",
            Dialect::OpenAi => "Server",
        }
    }
}

fn method_name(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Post => "post",
        HttpMethod::Delete => "delete",
        _ => "get",
    }
}

const JSON: &str = "application/json";
const BEARER: &str = "bearer";
const API_KEY: &str = "x-api-key";

type NamedSchema = (String, RefOr<Schema>);

/// What the document says of a method of an address.
pub(crate) struct About {
    summary: &'static str,
    body: Option<RefOr<Schema>>,
    parameters: Vec<Parameter>,
    answers: Vec<(&'static str, RefOr<Schema>)>,
    stream: Option<RefOr<Schema>>,
    /// Whether a stream has `[DONE]` behind its last value.
    done: bool,
    headers: Vec<(HeaderName, &'static str)>,
    refusals: &'static [Kind],
    schemas: Vec<NamedSchema>,
}

impl About {
    pub(crate) fn new(summary: &'static str) -> Self {
        Self {
            summary,
            body: None,
            parameters: Vec::new(),
            answers: Vec::new(),
            stream: None,
            done: false,
            headers: Vec::new(),
            refusals: &[],
            schemas: Vec::new(),
        }
    }

    fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name().into_owned();
        T::schemas(&mut self.schemas);
        self.schemas.push((name.clone(), T::schema()));
        Ref::from_schema_name(name).into()
    }

    /// The body of the request.
    pub(crate) fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some(self.schema::<T>());
        self
    }

    /// What stands behind the question mark of the address.
    pub(crate) fn queries<T: IntoParams>(mut self) -> Self {
        self.parameters = T::into_params(|| Some(ParameterIn::Query));
        self
    }

    /// The body of the response.
    pub(crate) fn gives<T: ToSchema>(mut self) -> Self {
        let schema = self.schema::<T>();
        self.answers.push((JSON, schema));
        self
    }

    /// The body of the response, where it is text.
    pub(crate) fn gives_text(mut self, media_type: &'static str) -> Self {
        self.answers.push((media_type, ObjectBuilder::new().schema_type(Type::String).into()));
        self
    }

    /// The parts of the response, where it is asked for as a stream.
    pub(crate) fn streams<T: ToSchema>(mut self) -> Self {
        self.stream = Some(self.schema::<T>());
        self
    }

    /// The parts of the response, where it is asked for as a stream that `[DONE]` ends.
    pub(crate) fn streams_until_done<T: ToSchema>(self) -> Self {
        Self { done: true, ..self.streams::<T>() }
    }

    /// A header of the response, and what it says.
    pub(crate) fn tells(mut self, name: HeaderName, description: &'static str) -> Self {
        self.headers.push((name, description));
        self
    }

    /// Why a request may be refused, beside what its body and its address make possible.
    pub(crate) fn refuses(mut self, kinds: &'static [Kind]) -> Self {
        self.refusals = kinds;
        self
    }
}

fn error_schema(dialect: Dialect) -> (RefOr<Schema>, Vec<NamedSchema>) {
    let mut about = About::new("");
    let schema = match dialect {
        Dialect::OpenAi => about.schema::<OpenAiError>(),
        Dialect::Anthropic => about.schema::<AnthropicError>(),
        Dialect::Ollama => about.schema::<OllamaError>(),
    };
    (schema, about.schemas)
}

/// What a stream consists of: events whose data are texts of JSON, or lines of JSON. OpenAPI 3.1 has no word for a sequence, so
/// the schema is that of one event or line, and says what its text contains.
fn stream_schema(
    dialect: Dialect,
    done: bool,
    item: RefOr<Schema>,
    error: RefOr<Schema>,
) -> (&'static str, RefOr<Schema>) {
    let contents = AnyOf { items: vec![item, error], ..AnyOf::new() };
    let text = ObjectBuilder::new().schema_type(Type::String).content_media_type(JSON);
    let text = text.content_schema(Some(Schema::AnyOf(contents)));
    if dialect == Dialect::Ollama {
        return ("application/x-ndjson", text.description(Some("Lines, each of which is a value.")).into());
    }
    let end = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["[DONE]"]));
    let mut items: Vec<RefOr<Schema>> = vec![text.into()];
    if done {
        items.push(end.into());
    }
    let data = Schema::AnyOf(AnyOf { items, ..AnyOf::new() });
    let name = ObjectBuilder::new().schema_type(Type::String).description(Some("The name of the event."));
    let event = ObjectBuilder::new().description(Some("One event of the stream."));
    ("text/event-stream", event.property("event", name).property("data", data).required("data").into())
}

/// The document of the routes of a server that stands below `base_path`.
pub(crate) fn document(routes: &[Route], base_path: &str) -> OpenApi {
    let mut paths = Paths::new();
    let mut schemas = BTreeMap::new();
    for route in routes {
        let mut item = PathItem::default();
        for (method, about) in &route.operations {
            let operation = route.operation(method, about);
            item.merge_operations(PathItem::new(method.clone(), operation));
            schemas.extend(about.schemas.iter().cloned());
        }
        schemas.extend(error_schema(Dialect::of_path(route.path)).1);
        paths.paths.insert(route.documented_path(), item);
    }
    let key = ApiKeyValue::with_description(API_KEY, "One of the server's keys, if it has any.");
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description = Some("One of the server's keys, if it has any.".into());
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .security_scheme(API_KEY, SecurityScheme::ApiKey(ApiKey::Header(key)));
    let info = InfoBuilder::new().title("Minke").version(env!("CARGO_PKG_VERSION")).description(Some(
        "A model over HTTP. Fields of requests that are not named here are permitted; x-minke-ignored names them.",
    ));
    let server = Server::new(if base_path.is_empty() { "/" } else { base_path });
    OpenApiBuilder::new().info(info).servers(Some([server])).paths(paths).components(Some(components.build())).build()
}

/// Any object.
#[derive(ToSchema)]
pub(crate) struct Object {}
